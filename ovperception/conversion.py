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

__all__ = ["Conversion", "Converted", "Converter", "StoredDtype", "convert_file", "converter", "format_names"]

GROUP = "ovperception.converters"

StoredDtype = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """An official checkpoint taken apart.

    Attributes:
        about: the published model it is a checkpoint of; gives backbone, preprocessing and the card.
        head_settings: what the head is built from, in plain JSON types.
        head_state: the head's state dict.
        backbone_state: the state dict of the open_clip model `about.backbone` names: both towers.
        keys_read: how many of the checkpoint's entries were used.
    """

    about: CatalogueEntry
    head_settings: Mapping[str, Any]
    head_state: Mapping[str, Tensor]
    backbone_state: Mapping[str, Tensor]
    keys_read: int


class Converter(Protocol):
    """What an entry point of the group `ovperception.converters` names."""

    def __call__(self, path: Path, *, vocabulary: Vocabulary) -> Converted:
        """Read a checkpoint, checking every key and shape; execute nothing in it.

        Args:
            path: the official file.
            vocabulary: what it was trained with.

        Raises:
            MissingFile: there is no such file.
            InvalidCheckpoint: it is no whole checkpoint of this format.
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
        include_backbone: keep the frozen CLIP in the bundle, else refer to it by name and digest.
        dtype: of the stored weights; models are loaded in float32 whatever it is.

    Raises:
        Unsupported: the format is not known.
        MissingFile, InvalidCheckpoint: the file is not there, or not a whole checkpoint of this format.
        UnknownVocabulary, InvalidVocabulary: of `vocabulary`.
        ResourceExhausted: no room for the bundle.
    """
    convert = converter(format_name)
    if not checkpoint.is_file():
        what = "is a folder" if checkpoint.is_dir() else "does not exist"
        raise MissingFile(f"The checkpoint {checkpoint} {what}", field="checkpoint", expected="a file")
    words = _vocabulary(vocabulary or _training_vocabulary(format_name))
    converted = convert(checkpoint, vocabulary=words)
    head = _stored(converted.head_state, dtype)
    # What the heads will stand on: the published weights if referred to, else what the bundle holds.
    backbone = _stored(converted.backbone_state, dtype if include_backbone else "float32")
    about = converted.about
    card = card_for(
        about,
        backbone=BackboneCard(
            name=about.backbone, digest=_backbone_digest(about.backbone, backbone), included=include_backbone
        ),
        head_settings=converted.head_settings,
        bundle_name=name,
        vocabulary=words.name,
        verified=(f"Every key and shape of {checkpoint.name} checked (SHA-256 {sha256_of(checkpoint)}).",),
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


def _training_vocabulary(format_name: str) -> str:
    names = {e.vocabulary for e in entries().values() if e.format == format_name}
    if len(names) != 1:
        raise InvalidParameter(
            f"The training vocabulary of a {format_name} checkpoint must be named",
            field="vocabulary",
            expected=", ".join(sorted(names)) or "a built-in vocabulary or a file",
        )
    return names.pop()


def _vocabulary(name: str) -> Vocabulary:
    from ovperception.vocabulary import Vocabulary

    is_file = name.endswith((".json", ".txt"))
    return Vocabulary.from_file(name) if is_file else Vocabulary.builtin(name)


def _stored(state: Mapping[str, Tensor], dtype: StoredDtype) -> dict[str, Tensor]:
    import torch

    wanted = torch.float16 if dtype == "float16" else torch.float32
    return {k: v.to(wanted) if v.is_floating_point() else v for k, v in state.items()}


def _backbone_digest(name: str, state: Mapping[str, Tensor]) -> str:
    """The digest `BackboneSpec` will have once these weights are loaded in float32."""
    import open_clip
    import torch

    from ovperception.backbones import build_open_clip, from_open_clip

    config = open_clip.get_model_config(name.removeprefix("open_clip:").partition("/")[0])
    with torch.device("meta"):
        model, tokenizer = build_open_clip(config)
    model.load_state_dict(_stored(state, "float32"), assign=True)
    return from_open_clip(model, name, tokenizer=tokenizer).spec.digest
