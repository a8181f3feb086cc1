"""Prompt templates: the named sets that papers use, and checks for one's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from ovperception.errors import InvalidVocabulary

__all__ = ["MAX_TEMPLATES", "load_templates", "resolve_templates", "template_names"]

MAX_TEMPLATES = 256
_MAX_LENGTH = 256


@cache
def _sets() -> dict[str, tuple[str, ...]]:
    text = files("ovperception").joinpath("data/templates.json").read_text(encoding="utf-8")
    return {name: tuple(entry["templates"]) for name, entry in json.loads(text).items()}


def template_names() -> tuple[str, ...]:
    """Names of the built-in sets."""
    return tuple(sorted(_sets()))


def load_templates(name: str) -> tuple[str, ...]:
    """Gives a built-in set, in its published order.

    Args:
        name: ``vild_14`` (FC-CLIP and others), ``openai_imagenet_80``, ``regionclip_81``, ``simple_7``, or
            ``none``.

    Raises:
        InvalidVocabulary: No such set.
    """
    try:
        return _sets()[name]
    except KeyError:
        raise InvalidVocabulary(
            "Unknown template set",
            field="vocabulary.templates",
            expected=f"one of {', '.join(template_names())}, or texts that contain {{}}",
            got=repr(name),
        ) from None


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Gives the templates meant by the name of a set, one template, or a list of them.

    Raises:
        InvalidVocabulary: An unknown set, no template, too many, or one without ``{}``.
    """
    if isinstance(templates, str):
        return (_checked(templates, 0),) if "{}" in templates else load_templates(templates)
    chosen = tuple(_checked(template, index) for index, template in enumerate(templates))
    if not 1 <= len(chosen) <= MAX_TEMPLATES:
        raise InvalidVocabulary(
            "Bad number of templates",
            field="vocabulary.templates",
            expected=f"1 to {MAX_TEMPLATES}",
            got=len(chosen),
        )
    return chosen


def _checked(template: object, index: int) -> str:
    field = f"vocabulary.templates[{index}]"
    if not isinstance(template, str) or "{}" not in template:
        raise InvalidVocabulary(
            "A template needs a place for the word",
            field=field,
            expected="text that contains {}",
            got=repr(template),
        )
    if len(template) > _MAX_LENGTH or not template.isprintable():
        raise InvalidVocabulary(
            "A template is too long or has unprintable characters",
            field=field,
            expected=f"up to {_MAX_LENGTH} printable characters",
            got=repr(template),
        )
    return template
