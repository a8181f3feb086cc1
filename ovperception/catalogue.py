"""The models with a name: what ships with the package, what was published, and where their files lie.

A published model is described here whether or not its weights are on this machine; `locate` is how a name
becomes a file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ovperception.bundle import BackboneCard, HeadCard, ModelCard
from ovperception.errors import InvalidParameter, MissingFile, UnknownModel

__all__ = [
    "BUILT_IN",
    "CatalogueEntry",
    "built_in_path",
    "cache_dir",
    "card_for",
    "entries",
    "entry",
    "how_to_get",
    "locate",
    "on_this_machine",
    "pulled_path",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DATA = Path(__file__).parent / "data"

BUILT_IN = tuple(
    name
    for name in ("tiny", "tiny-regionclip", "tiny-lseg")
    if (_DATA / "models" / f"{name}.safetensors").is_file()
)
"""Models whose weights are in the package."""


class CatalogueEntry(BaseModel):
    """A published model.

    Attributes:
        name: short name.
        summary: one sentence.
        head: entry point of the head that runs it.
        format: what `ovp convert` calls the official checkpoint's format; empty if `url` is a bundle.
        url: the official weights.
        file_name: what the official file is called here.
        sha256: of that file, hex; empty if it was not published.
        backbone: the frozen CLIP, ``open_clip:ARCH/PRETRAINED``.
        vocabulary: the training vocabulary's name.
        parameters: trained parameters of the head.
        backbone_parameters: frozen parameters, both towers.
        licence: of the weights, as their publishers state it.
        paper, code, source: where it was published.
        scores: published numbers.
        preprocessing: as `ovperception.preprocess.Preprocessing.to_dict` gives it.
        templates: prompt templates it is evaluated with.
        template_rule: how their embeddings become one (`ovperception.text.TemplateRule`).
        defaults: default thresholds of a question.
        verified: what was checked here and how.
        deviations: where this implementation differs on purpose.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    summary: str
    head: str
    format: str
    url: str
    file_name: str
    sha256: str = ""
    backbone: str
    vocabulary: str
    parameters: int
    backbone_parameters: int
    licence: str
    paper: str
    code: str
    source: str
    scores: dict[str, float]
    preprocessing: dict[str, Any]
    templates: str
    template_rule: Literal["normalise_each", "raw_mean"] = "normalise_each"
    defaults: dict[str, float] = Field(default_factory=dict)
    verified: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()

    @property
    def convert_command(self) -> str:
        """How the official file becomes the bundle that this name finds."""
        return f"ovp convert {self.file_name} --format {self.format} --name {self.name}"


def cache_dir() -> Path:
    """Where pulled files lie: ``$OVPERCEPTION_CACHE``, or ``~/.cache/ovperception``."""
    configured = os.environ.get("OVPERCEPTION_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "ovperception"


def pulled_path(name: str) -> Path:
    """Where the bundle of this name lies once it was pulled or converted.

    Raises:
        InvalidParameter: no model can be called this.
    """
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            "This cannot be the name of a model",
            field="name",
            expected="letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit",
            got=name,
        )
    return cache_dir() / "models" / f"{name}.safetensors"


def on_this_machine() -> dict[str, Path]:
    """Every pulled or converted model by name."""
    return {path.stem: path for path in sorted((cache_dir() / "models").glob("*.safetensors"))}


def built_in_path(name: str) -> Path:
    """Where the weights of a model of the package lie."""
    return _DATA / "models" / f"{name}.safetensors"


@cache
def entries() -> Mapping[str, CatalogueEntry]:
    """Every published model by name, in the order they are listed."""
    from pydantic import TypeAdapter

    text = (_DATA / "catalogue.json").read_text(encoding="utf-8")
    listed = TypeAdapter(list[CatalogueEntry]).validate_json(text)
    return {e.name: e for e in listed}


def entry(name: str) -> CatalogueEntry:
    """A published model by name.

    Raises:
        UnknownModel: none is called this.
    """
    if name in entries():
        return entries()[name]
    raise _unknown(name)


def locate(name: str | Path) -> Path:
    """The bundle of a model.

    A name goes before a file of the same name; write ``./tiny`` for the file.

    Args:
        name: a built-in, pulled or converted model, or the path of a bundle.

    Raises:
        UnknownModel: no model is called this, or its weights are not on this machine.
        MissingFile: a path that leads to no file.
    """
    if not isinstance(name, str | Path) or not str(name):
        raise UnknownModel(
            "This names no model", field="model", expected="a name or the path of a bundle", got=repr(name)
        )
    text = str(name)
    if isinstance(name, str) and name in BUILT_IN:
        return _built_in(name)
    if isinstance(name, str) and _NAME.fullmatch(name) and pulled_path(name).is_file():
        return pulled_path(name)
    if isinstance(name, str) and name in entries():
        raise UnknownModel(
            f"The weights of {name!r} are not on this machine",
            field="model",
            mend=how_to_get(entries()[name]),
        )
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise MissingFile(
            f"{text} is a folder",
            field="model",
            expected="a .safetensors bundle",
            mend="Give the file itself",
        )
    if isinstance(name, Path) or os.sep in text or path.suffix:
        raise MissingFile(
            f"There is no file {text}",
            field="model",
            expected=f"the path of a bundle, or one of {', '.join(_names())}",
            mend=_closest(text),
        )
    raise _unknown(text)


def _built_in(name: str) -> Path:
    path = built_in_path(name)
    if not path.is_file():
        raise UnknownModel(
            f"The weights of {name!r} are missing from this installation",
            field="model",
            got=path,
            mend="Install ovperception again",
        )
    return path


def _names() -> tuple[str, ...]:
    return tuple(dict.fromkeys((*BUILT_IN, *entries(), *on_this_machine())))


def _unknown(name: str) -> UnknownModel:
    return UnknownModel(
        f"No model is called {name!r}",
        field="model",
        expected=f"one of {', '.join(_names())}, or the path of a bundle",
        mend=_closest(name),
    )


def _closest(name: str) -> str:
    close = difflib.get_close_matches(Path(name).stem.lower(), _names(), n=1, cutoff=0.6)
    return f"Perhaps you meant {close[0]!r}" if close else "`ovp models` lists them"


def how_to_get(found: CatalogueEntry) -> str:
    """What to do so that a published model's weights are on this machine."""
    return (
        f"Run `ovp models pull {found.name}`, or download the official checkpoint from {found.url} "
        f"(listed at {found.source}) as {found.file_name} and run `{found.convert_command}`"
    )


def card_for(
    found: CatalogueEntry,
    *,
    backbone: BackboneCard,
    head_settings: Mapping[str, Any],
    bundle_name: str = "",
    vocabulary: str = "",
    verified: tuple[str, ...] = (),
) -> ModelCard:
    """The model card of a published model's bundle.

    Args:
        found: the catalogue's entry.
        backbone: as it lies in the bundle, or is referred to.
        head_settings: what the head is built from.
        bundle_name: what the bundle is called; the entry's name if empty.
        vocabulary: name of the vocabulary it was trained with; the entry's if empty.
        verified: what was checked beyond what the entry says.
    """
    return ModelCard(
        name=bundle_name or found.name,
        summary=found.summary,
        backbone=backbone,
        heads=(HeadCard(name=found.head, config=dict(head_settings)),),
        preprocessing=found.preprocessing,
        templates=found.templates,
        template_rule=found.template_rule,
        defaults=found.defaults,
        vocabulary=vocabulary or found.vocabulary,
        licence=found.licence,
        paper=found.paper,
        code=found.code,
        source=found.source,
        scores=found.scores,
        verified=(*verified, *found.verified),
        deviations=found.deviations,
    )
