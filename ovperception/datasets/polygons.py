"""Masks of annotation files - polygons, run lengths, compressed or not - as `RLE`.

Polygons are drawn by pycocotools, whose way of rounding corners is the one every published number rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovperception.dependencies import missing
from ovperception.errors import InvalidDataset, InvalidRegions
from ovperception.rle import RLE

__all__ = ["has_mask_form", "mask_of"]


def has_mask_form(segmentation: object, size: tuple[int, int]) -> bool:
    """Whether this looks like a mask of that (height, width); the full check is `mask_of`'s."""
    if isinstance(segmentation, Mapping):
        return "counts" in segmentation and segmentation.get("size") == list(size)
    return (
        isinstance(segmentation, list)
        and bool(segmentation)
        and all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in segmentation)
    )


def mask_of(segmentation: object, size: tuple[int, int], *, where: str) -> RLE:
    """The mask that a COCO ``segmentation`` describes.

    Args:
        segmentation: polygons ``[[x, y, x, y, x, y, ...], ...]``, or ``{"size", "counts"}``.
        size: (height, width) of the picture.
        where: how messages call the annotation.

    Raises:
        InvalidDataset: neither form, or a mask of another size than its picture.
    """
    if isinstance(segmentation, Mapping):
        try:
            mask = RLE.from_coco(segmentation)
        except InvalidRegions as error:
            raise InvalidDataset(
                f"The mask of {where} is broken: {error.what}",
                field="segmentation",
                expected=error.expected,
                got=error.got or None,
            ) from error
        if mask.size != size:
            raise InvalidDataset(
                f"The mask of {where} has another size than its picture",
                field="segmentation.size",
                expected=f"(height, width) = {size}",
                got=mask.size,
            )
        return mask
    return _drawn(_polygons(segmentation, where), size)


def _polygons(segmentation: object, where: str) -> list[Sequence[float]]:
    if isinstance(segmentation, list) and segmentation and all(map(_is_polygon, segmentation)):
        return segmentation
    raise InvalidDataset(
        f"The mask of {where} is neither polygons nor run lengths",
        field="segmentation",
        expected='[[x, y, x, y, x, y, ...], ...] with three corners or more each, or {"size", "counts"}',
        got=repr(segmentation)[:100],
    )


def _is_polygon(points: object) -> bool:
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(isinstance(value, int | float) and abs(value) < 1e6 for value in points)
    )


def _drawn(polygons: list[Sequence[float]], size: tuple[int, int]) -> RLE:
    try:
        from pycocotools import mask as codec
    except ModuleNotFoundError as error:
        raise missing(error, "Drawing masks from polygons") from error
    merged: Any = codec.merge(codec.frPyObjects(polygons, *size))
    return RLE(size, merged["counts"])
