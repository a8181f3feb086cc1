"""Boxes as a caller brings them: numbers of the right shape, and with an area inside the picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ovperception.errors import InvalidRegions

__all__ = ["MAX_BOXES", "as_boxes", "boxes_inside"]

MAX_BOXES = 10_000
"""Boxes that one question may bring: ten times what a proposal network gives an image."""


def as_boxes(boxes: ArrayLike) -> NDArray[np.float32]:
    """(N, 4) float32, whatever the numbers say; (0, 4) of anything empty.

    Raises:
        InvalidRegions: No numbers, or of another shape.
    """
    try:
        array = np.asarray(boxes, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidRegions(
            "Boxes are not numbers", field="boxes", expected="(N, 4) xyxy", got=error
        ) from error
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise InvalidRegions(
            "Boxes have a wrong shape", field="boxes", expected="(N, 4) xyxy", got=array.shape
        )
    return array


def boxes_inside(boxes: ArrayLike, size: tuple[int, int]) -> NDArray[np.float32]:
    """The same for boxes of a picture, which may reach outside of it; they stay as they are.

    Args:
        boxes: (N, 4) xyxy pixels.
        size: (height, width) of the picture.

    Raises:
        InvalidRegions: As of `as_boxes`; too many, not finite, or a box without area inside the picture.
    """
    array = as_boxes(boxes)
    if len(array) > MAX_BOXES:
        raise InvalidRegions(
            "There are too many boxes", field="boxes", expected=f"at most {MAX_BOXES}", got=len(array)
        )
    height, width = size
    low = np.maximum(array[:, :2], 0)
    high = np.minimum(array[:, 2:], (width, height))
    bad = ~(np.isfinite(array).all(1) & (high > low).all(1))
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise InvalidRegions(
            "A box has no area inside the image",
            field=f"boxes[{index}]",
            expected=f"x0 < x1, y0 < y1 in pixels of an image of {height} x {width} (height, width)",
            got=array[index].tolist(),
        )
    return array
