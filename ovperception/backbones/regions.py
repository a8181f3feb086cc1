"""Boxes and masks on feature maps: what the families share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["as_rois", "covered_cells", "mask_boxes", "masked_mean", "most_covered"]

_EPSILON = 1e-8  # FC-CLIP, `MaskPooling`


def as_rois(boxes: Sequence[Tensor], device: torch.device) -> Tensor:
    """B tensors (N_i, 4) xyxy -> (sum N_i, 5) float32: image index, then the box, as `roi_align` wants it."""
    parts = [
        torch.cat([torch.full((len(b), 1), float(i), device=device), b.to(device, torch.float32)], 1)
        for i, b in enumerate(boxes)
    ]
    return torch.cat(parts)


def masked_mean(dense: Tensor, masks: Tensor) -> Tensor:
    """Mean of a map inside masks.

    Args:
        dense: (B, C, h, w).
        masks: (B, Q, h, w) bool.

    Returns:
        (B, Q, C); zero for an empty mask.
    """
    weights = masks.to(dense.dtype)
    weights = weights / (weights.sum((-1, -2), keepdim=True) + _EPSILON)
    return torch.einsum("bchw,bqhw->bqc", dense, weights)


def most_covered(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, Q, H, W) bool -> (B, Q, h, w) bool: the cell a mask covers most; none for an empty mask."""
    return _most(F.adaptive_avg_pool2d(masks.float(), grid))


def mask_boxes(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """The tight boxes of masks.

    Args:
        masks: (..., h, w) bool, on a grid that covers a picture.
        size: (height, width) of that picture in pixels.

    Returns:
        (..., 4) float32 xyxy in pixels; of an empty mask the whole picture.
    """
    ends = []
    for across, extent in ((masks.any(-2), size[1]), (masks.any(-1), size[0])):
        cells = across.shape[-1]
        first = across.int().argmax(-1)
        last = cells - across.flip(-1).int().argmax(-1)
        ends.append((first * (extent / cells), last * (extent / cells)))
    (x0, x1), (y0, y1) = ends
    return torch.stack((x0, y0, x1, y1), dim=-1).float()


def covered_cells(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, Q, H, W) bool on a coarser grid: cells covered by half, or else the one covered most."""
    covered = F.adaptive_avg_pool2d(masks.float(), grid)
    inside = covered >= 0.5
    return inside | (~inside.flatten(2).any(-1)[..., None, None] & _most(covered))


def _most(covered: Tensor) -> Tensor:
    return (covered == covered.amax((-2, -1), keepdim=True)) & (covered > 0)
