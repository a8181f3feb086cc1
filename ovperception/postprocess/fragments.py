"""Stray parts of masks: a cell in a far corner spoils a box, and what is pooled under the mask."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

__all__ = ["drop_fragments"]

_OUTSIDE = -10.0  # finite: what is interpolated with it must stay a number


def drop_fragments(mask_logits: Tensor, share: float) -> Tensor:
    """Set outside what is connected to a mask's body by nothing and is small beside it.

    Args:
        mask_logits: (..., h, w); a mask is where they are positive.
        share: Parts (8-connected) of fewer cells than this share of the mask's largest part go, 0-1.

    Returns:
        The same shape; the argument itself where nothing was dropped.
    """
    flat = mask_logits.flatten(0, -3)
    inside = (flat > 0).cpu().numpy().astype(np.uint8)
    dropped = np.zeros(inside.shape, bool)
    for index, mask in enumerate(inside):
        count, parts, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if count < 3:  # the outside and one part
            continue
        areas = facts[:, cv2.CC_STAT_AREA]
        small = areas < share * areas[1:].max()
        small[0] = False
        dropped[index] = small[parts]
    if not dropped.any():
        return mask_logits
    return flat.masked_fill(torch.from_numpy(dropped).to(flat.device), _OUTSIDE).view_as(mask_logits)
