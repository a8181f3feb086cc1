"""Official FC-CLIP checkpoints for `ovp convert`: which published model a file is of, and its parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from heads.fcclip.convert import ConvertedCheckpoint, official_names
from heads.fcclip.convert import convert as convert_file
from ovperception.catalogue import CatalogueEntry, entries
from ovperception.conversion import Companions, Converted

if TYPE_CHECKING:
    from ovperception.vocabulary import Vocabulary

__all__ = ["convert"]


def convert(path: Path, *, vocabulary: Vocabulary | None, companions: Companions) -> Converted:
    """Read an official FC-CLIP checkpoint: a file of `torch.save`, or its state dict as ``.safetensors``.

    Args:
        path: the file.
        vocabulary: what it was trained with. Its classes and synonyms are FC-CLIP's "seen" words, compared
            letter by letter.
        companions: none; the file is whole.

    Raises:
        InvalidParameter: a companion was given.
        MissingFile: there is no such file.
        InvalidCheckpoint: not a checkpoint, not of FC-CLIP, incomplete, or with something unknown in it.
    """
    companions.refuse("FC-CLIP")
    words = () if vocabulary is None else tuple(dict.fromkeys(vocabulary.texts))
    parts = convert_file(path, seen_words=words)
    used = {theirs for theirs, _ in official_names(parts.config).values()}
    return Converted(
        about=_published(parts),
        head_settings=parts.config.to_dict(),
        head_state=parts.head_state,
        backbone_state=parts.backbone_state,
        keys_read=len(used) + len(parts.backbone_state),
    )


def _published(parts: ConvertedCheckpoint) -> CatalogueEntry:
    for found in entries().values():
        if found.head == "fcclip" and found.backbone.startswith(f"open_clip:{parts.backbone_arch}/"):
            return found
    raise AssertionError(parts.backbone_arch)  # every size in PUBLISHED has its entry
