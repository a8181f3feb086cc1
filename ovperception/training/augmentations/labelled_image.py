"""One picture and what is known of it, before anything of a network is decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidDataset

__all__ = ["VOID", "LabelledImage", "tight_boxes"]

#: Of a panoptic map: pixels that belong to no segment.
VOID = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """A picture with N objects or regions; pixel i covers [i, i + 1), boxes are half-open.

    The shapes come in one of three ways: a stack of masks, which may overlap; a panoptic map, which costs the
    same however many segments there are; or boxes alone.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        class_ids: (N,) int64, indices into the training vocabulary.
        boxes: (N, 4) float32 xyxy in pixels.
        masks: (N, H, W) bool, or None.
        panoptic: (H, W) int32, a segment's id at each of its pixels and 0 elsewhere, or None.
        segment_ids: (N,) int32, the ids of the panoptic map in the order of `class_ids`; empty without one.
    """

    image: NDArray[np.uint8]
    class_ids: NDArray[np.int64]
    boxes: NDArray[np.float32]
    masks: NDArray[np.bool_] | None = None
    panoptic: NDArray[np.int32] | None = None
    segment_ids: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        count, size = len(self.class_ids), self.image.shape[:2]
        wanted: list[tuple[str, Any, tuple[int, ...]]] = [("boxes", self.boxes, (count, 4))]
        if self.masks is not None:
            wanted.append(("masks", self.masks, (count, *size)))
        if self.panoptic is not None:
            wanted += [
                ("panoptic", self.panoptic, size),
                ("segment_ids", self.segment_ids, (count,)),
            ]
        for name, array, shape in wanted:
            if np.shape(array) != shape:
                raise InvalidDataset(
                    f"The {name} do not fit the picture and its classes",
                    field=name,
                    expected=shape,  # type: ignore[arg-type]
                    got=np.shape(array),
                )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def mask_stack(self) -> NDArray[np.bool_] | None:
        """(N, H, W) bool of whatever tells the shapes; None where only boxes do."""
        if self.masks is not None:
            return self.masks
        if self.panoptic is None or self.segment_ids is None:
            return None
        return np.asarray(self.panoptic == self.segment_ids[:, None, None])


def tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(N, H, W) masks to (N, 4) float32 xyxy, half-open; zeros for an empty mask."""
    boxes = np.zeros((len(masks), 4), np.float32)
    if masks.size == 0:
        return boxes
    for axis, low in ((1, 0), (2, 1)):  # columns are found by looking along the rows
        found = np.asarray(masks.any(axis=axis))
        some = found.any(axis=1)
        boxes[:, low] = np.where(some, found.argmax(axis=1), 0)
        boxes[:, low + 2] = np.where(some, found.shape[1] - found[:, ::-1].argmax(axis=1), 0)
    return boxes
