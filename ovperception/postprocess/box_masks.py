"""Masks that were made inside boxes, put where the boxes are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovperception.images import Geometry
from ovperception.rle import RLE

__all__ = ["draft_masks"]

_THRESHOLD = 0.5  # Mask R-CNN


def draft_masks(
    boxes: Tensor, segment: Callable[[Tensor], Tensor | None], geometry: Geometry
) -> Callable[[], tuple[RLE, ...]] | None:
    """Make the masks of boxes; a box that occurs twice is worked on once.

    A pixel belongs to the mask if the probability at its centre, interpolated bilinearly between the centres
    of the box's cells and falling to 0 beyond them, is at least 0.5.

    Source: detectron2 `layers/mask_ops.py`, `paste_masks_in_image`.

    Args:
        boxes: (N, 4) xyxy, pixels of the network input, cut to the picture.
        segment: (M, 4) boxes to (M, S, S) probabilities, or None if there are no masks to be had.
        geometry: How the picture lies in the network input.

    Returns:
        What pastes them, without the device: N masks of the presented image, some perhaps empty. None if
        `segment` makes none.
    """
    different, which = torch.unique(boxes, dim=0, return_inverse=True)
    probabilities = segment(different)
    if probabilities is None:
        return None
    places = geometry.boxes_to_original(different.cpu().numpy())
    grids = probabilities.float().cpu().numpy()
    order = which.tolist()

    def paste() -> tuple[RLE, ...]:
        pasted = [_paste(grid, box, geometry.original) for grid, box in zip(grids, places, strict=True)]
        return tuple(pasted[i] for i in order)

    return paste


def _paste(grid: NDArray[np.float32], box: NDArray[np.float32], size: tuple[int, int]) -> RLE:
    x0, y0, x1, y1 = box.tolist()
    columns, left = _weights(x0, x1, grid.shape[1], size[1])
    rows, top = _weights(y0, y1, grid.shape[0], size[0])
    return RLE.from_crop(rows @ grid @ columns.T >= _THRESHOLD, top, left, size)


def _weights(start: float, stop: float, cells: int, limit: int) -> tuple[NDArray[np.float32], int]:
    """One axis: (pixels, cells) shares of the cells in each pixel from the first that the box touches."""
    first, last = max(0, math.floor(start)), min(limit, math.ceil(stop))
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    places = (centres - np.float32(start)) / np.float32(stop - start) * cells - np.float32(0.5)
    distances = np.abs(places[:, None] - np.arange(cells, dtype=np.float32))
    return np.clip(1 - distances, 0, None).astype(np.float32), first
