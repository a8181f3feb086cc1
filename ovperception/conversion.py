"""Official checkpoints to bundles: what a converter gives, how one is found, and how its result is written.

A converter belongs to its head's package and is found through the entry points of the group
``ovperception.converters``: format name -> a `Converter`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from ovperception.bundle import BackboneCard, ModelCard, write_bundle
from ovperception.catalogue import CatalogueEntry, card_for, entries
from ovperception.download import sha256_of
from ovperception.errors import InvalidParameter, MissingFile, Unsupported

if TYPE_CHECKING:
    from torch import Tensor

    from ovperception.vocabulary import Vocabulary

__all__ = [
    "Companions",
    "Conversion",
    "Converted",
    "Converter",
    "StoredDtype",
    "convert_file",
    "converter",
    "format_names",
]

GROUP = "ovperception.converters"

StoredDtype = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Companions:
    """Files that some formats need beside the checkpoint, because it was published in parts.

    Attributes:
        rpn: a detectron2 checkpoint whose region proposal network the model uses.
        clip: weights of the original CLIP, for the text tower that a fine-tuned detector does not hold.
    """

    rpn: Path | None = None
    clip: Path | None = None

    def given(self) -> dict[str, Path]:
        """Those that there are, by their names."""
        return {k: v for k, v in (("rpn", self.rpn), ("clip", self.clip)) if v is not None}

    def refuse(self, format_name: str) -> None:
        """For formats whose checkpoints are whole.

        Raises:
            InvalidParameter: there is one.
        """
        for name, path in self.given().items():
            raise InvalidParameter(
                f"A {format_name} checkpoint needs no second file", field=name, got=path, mend="Leave it out"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """An official checkpoint taken apart.

    Attributes:
        about: the published model it is a checkpoint of; gives backbone, preprocessing and the card.
        head_settings: what the head is built from, in plain JSON types.
        head_state: the head's state dict.
        backbone_state: the state dict of the open_clip model `about.backbone` names: both towers.
        keys_read: how many of the checkpoint's entries were used.
        backbone_config: the open_clip configuration to build the backbone from, where its name does not tell
            all, such as that only the text tower is there.
    """

    about: CatalogueEntry
    head_settings: Mapping[str, Any]
    head_state: Mapping[str, Tensor]
    backbone_state: Mapping[str, Tensor]
    keys_read: int
    backbone_config: Mapping[str, Any] | None = None


_NONE = Companions()


class Converter(Protocol):
    """What an entry point of the group `ovperception.converters` names."""

    def __call__(self, path: Path, *, vocabulary: Vocabulary | None, companions: Companions) -> Converted:
        """Read a checkpoint, checking every key and shape; execute nothing in it.

        Args:
            path: the official file.
            vocabulary: what it was trained with; None where the published models of the format differ in
                that, and nobody named it.
            companions: the other files.

        Raises:
            MissingFile: there is no such file.
            InvalidCheckpoint: it is no whole checkpoint of this format.
            InvalidParameter: a companion that the format has no use for.
            Unavailable: a companion is needed, was not given, and cannot be fetched.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A bundle that was just written."""

    path: Path
    card: ModelCard
    published: str
    keys_read: int
    nbytes: int


def format_names() -> tuple[str, ...]:
    """The formats that installed packages convert."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def converter(name: str) -> Converter:
    """The converter of a format.

    Raises:
        Unsupported: no installed package provides it.
    """
    for point in entry_points(group=GROUP):
        if point.name == name:
            return cast("Converter", point.load())
    known = format_names()
    close = difflib.get_close_matches(name, known, n=1)
    raise Unsupported(
        f"No converter is installed for the format {name!r}",
        field="format",
        expected=f"one of {', '.join(known) or '(none installed)'}",
        mend=f"Perhaps you meant {close[0]!r}" if close else "",
    )


def convert_file(
    checkpoint: Path,
    out: Callable[[ModelCard], Path],
    *,
    format_name: str,
    name: str = "",
    vocabulary: str = "",
    companions: Companions = _NONE,
    include_backbone: bool = True,
    dtype: StoredDtype = "float32",
) -> Conversion:
    """Convert an official checkpoint and write the bundle; a file that is there is replaced.

    Args:
        checkpoint: the official file.
        out: where the bundle with this card goes; may refuse.
        format_name: of `format_names`.
        name: what the model is called; the published name if empty.
        vocabulary: name of a built-in vocabulary or path of a vocabulary file; the published one if empty.
        companions: files that complete the checkpoint.
        include_backbone: keep the frozen CLIP in the bundle, else refer to it by name and digest.
        dtype: of the stored weights; models are loaded in float32 whatever it is.

    Raises:
        Unsupported: the format is not known.
        MissingFile, InvalidCheckpoint: a file is not there, or not a whole checkpoint of this format.
        InvalidParameter: the backbone cannot be referred to, or a companion is of no use.
        Unavailable: a companion is needed, was not given, and cannot be fetched.
        UnknownVocabulary, InvalidVocabulary: of `vocabulary`.
        ResourceExhausted: no room for the bundle.
    """
    convert = converter(format_name)
    _require({"checkpoint": checkpoint} | companions.given())
    named = vocabulary or _training_vocabulary(format_name)
    words = _vocabulary(named) if named else None
    converted = convert(checkpoint, vocabulary=words, companions=companions)
    head = _stored(converted.head_state, dtype)
    # What the heads will stand on: the published weights if referred to, else what the bundle holds.
    backbone = _stored(converted.backbone_state, dtype if include_backbone else "float32")
    about = converted.about
    if not include_backbone:
        _require_published(about)
    card = card_for(
        about,
        backbone=BackboneCard(
            name=about.backbone,
            config=None if converted.backbone_config is None else dict(converted.backbone_config),
            digest=_backbone_digest(about.backbone, backbone, converted.backbone_config),
            included=include_backbone,
        ),
        head_settings=converted.head_settings,
        bundle_name=name,
        vocabulary="" if words is None else words.name,
        verified=_verified(checkpoint, companions),
    )
    path = out(card)
    tensors = {f"head.{about.head}.{key}": value for key, value in head.items()}
    if include_backbone:
        tensors |= {f"backbone.{key}": value for key, value in backbone.items()}
    write_bundle(path, card, tensors)
    return Conversion(
        path=path,
        card=card,
        published=about.name,
        keys_read=converted.keys_read,
        nbytes=path.stat().st_size,
    )


def _require(files: Mapping[str, Path]) -> None:
    for field, file in files.items():
        if not file.is_file():
            what = "is a folder" if file.is_dir() else "does not exist"
            called = "checkpoint" if field == "checkpoint" else f"{field} file"
            raise MissingFile(f"The {called} {file} {what}", field=field, expected="a file")


def _require_published(about: CatalogueEntry) -> None:
    """Refuse to refer to a CLIP that only the checkpoint has."""
    if "/" not in about.backbone:
        raise InvalidParameter(
            f"The CLIP of {about.name} was trained with it and is published nowhere else",
            field="include_backbone",
            mend="Keep it in the bundle",
        )


def _verified(checkpoint: Path, companions: Companions) -> tuple[str, ...]:
    """What the card says of the files."""
    return (
        f"Every key and shape of {checkpoint.name} checked (SHA-256 {sha256_of(checkpoint)}).",
        *(
            f"Completed by {file.name}, the {role} (SHA-256 {sha256_of(file)})."
            for role, file in companions.given().items()
        ),
    )


def _training_vocabulary(format_name: str) -> str:
    """What all published models of the format were trained with; empty if they differ in it."""
    names = {e.vocabulary for e in entries().values() if e.format == format_name}
    if not names:
        raise InvalidParameter(
            f"The training vocabulary of a {format_name} checkpoint must be named",
            field="vocabulary",
            expected="a built-in vocabulary or a file",
        )
    return names.pop() if len(names) == 1 else ""


def _vocabulary(name: str) -> Vocabulary:
    from ovperception.vocabulary import Vocabulary

    is_file = name.endswith((".json", ".txt"))
    return Vocabulary.from_file(name) if is_file else Vocabulary.builtin(name)


def _stored(state: Mapping[str, Tensor], dtype: StoredDtype) -> dict[str, Tensor]:
    import torch

    wanted = torch.float16 if dtype == "float16" else torch.float32
    return {k: v.to(wanted) if v.is_floating_point() else v for k, v in state.items()}


def _backbone_digest(name: str, state: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> str:
    """The digest `BackboneSpec` will have once these weights are loaded in float32."""
    import open_clip
    import torch

    from ovperception.backbones import build_open_clip, from_open_clip

    if config is None:
        config = open_clip.get_model_config(name.removeprefix("open_clip:").partition("/")[0])
    with torch.device("meta"):
        model, tokenizer = build_open_clip(config)
    model.load_state_dict(_stored(state, "float32"), assign=True)
    return from_open_clip(model, name, tokenizer=tokenizer).spec.digest
