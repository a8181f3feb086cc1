"""Anchor boxes on a grid, and boxes told by their difference to an anchor.

Sources: Ren et al. 2015 ("Faster R-CNN"), section 3; detectron2
`modeling/{anchor_generator,box_regression}.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["MAX_LOG_SCALE", "RATIOS", "cell_anchors", "decode_deltas", "encode_deltas", "grid_anchors"]

RATIOS = (0.5, 1.0, 2.0)
"""Height to width of the anchors of one size."""

MAX_LOG_SCALE = math.log(1000 / 16)
"""No box grows more than this over its anchor, so that the exponential stays finite."""


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float] = RATIOS) -> Tensor:
    """Anchors around the origin.

    Args:
        sizes: sides, in pixels, of the squares that have the anchors' area.
        ratios: height to width.

    Returns:
        (A, 4) float32 xyxy; all ratios of the first size come first.
    """
    boxes = []
    for size in sizes:
        for ratio in ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            boxes.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(boxes, dtype=torch.float32)


def grid_anchors(cells: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """The anchors of a whole map; cell (0, 0) has its anchors around the image's corner.

    Args:
        cells: (A, 4) of `cell_anchors`.
        size: (h, w) of the map.
        stride: pixels a cell.

    Returns:
        (h * w * A, 4) xyxy pixels, row by row, the anchors of a cell side by side.
    """
    rows, columns = (torch.arange(n, device=cells.device, dtype=cells.dtype) * stride for n in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    shifts = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)  # (h * w, 1, 4)
    return (shifts + cells).reshape(-1, 4)


def decode_deltas(
    boxes: Tensor, deltas: Tensor, weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Boxes moved and scaled: the centre by parts of the side, the sides by an exponential.

    Args:
        boxes: (..., 4) xyxy.
        deltas: (..., 4) dx, dy, dw, dh.
        weights: what each delta is divided by.

    Returns:
        (..., 4) xyxy, not clipped.
    """
    sides = boxes[..., 2:] - boxes[..., :2]
    centres = boxes[..., :2] + 0.5 * sides
    dx, dy, dw, dh = (delta / weight for delta, weight in zip(deltas.unbind(-1), weights, strict=True))
    centres = torch.stack((dx, dy), dim=-1) * sides + centres
    half = 0.5 * (torch.stack((dw, dh), dim=-1).clamp(max=MAX_LOG_SCALE).exp() * sides)
    return torch.cat((centres - half, centres + half), dim=-1)


def encode_deltas(
    boxes: Tensor, targets: Tensor, weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """What takes one box to another: the inverse of `decode_deltas`, as far as that is not clamped.

    Args:
        boxes: (..., 4) xyxy, of some area.
        targets: (..., 4) xyxy, of some area.
        weights: what each delta is multiplied by.

    Returns:
        (..., 4) dx, dy, dw, dh.
    """
    sides, wanted = boxes[..., 2:] - boxes[..., :2], targets[..., 2:] - targets[..., :2]
    shift = (targets[..., :2] + 0.5 * wanted) - (boxes[..., :2] + 0.5 * sides)
    deltas = torch.cat((shift / sides, torch.log(wanted / sides)), dim=-1)
    return deltas * deltas.new_tensor(weights)
