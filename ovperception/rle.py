"""COCO run-length encoding without pycocotools, so that a client needs numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RLE"]


@dataclass(frozen=True, slots=True)
class RLE:
    """One mask as COCO compressed RLE.

    Attributes:
        size: (height, width) of the whole image.
        counts: run lengths in column-major order, in COCO's compressed string form.
    """

    size: tuple[int, int]
    counts: bytes
