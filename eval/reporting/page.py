"""Pages from templates: everything inline, nothing fetched, everything that users named escaped.

The page forbids itself the network and any script but its own by a Content-Security-Policy, so that even a
class called ``<script>`` can do nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

from eval.reporting.numbers import meaning, signed, written
from ovperception.dependencies import missing

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render"]


def render(template: str, content: Mapping[str, object]) -> str:
    """One page.

    Args:
        template: name of a file in ``eval/reporting/pages``.
        content: what its variables stand for.

    Raises:
        MissingDependency: jinja2 is not installed.
    """
    style, script = _file("style.css"), _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}';"
        " base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(content, style=Markup(style), script=Markup(script), policy=policy)
    )


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise missing(error, "A page") from error
    environment = Environment(
        loader=PackageLoader("eval.reporting", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"written": written, "signed": signed, "meaning": meaning}
    return environment


@cache
def _file(name: str) -> str:
    return files("eval").joinpath("reporting", "pages", name).read_text(encoding="utf-8")
