"""Boundaries of masks: the pixels of a mask that are near to its outline (Boundary IoU, Cheng et al. 2021).

Near is within 2 % of the image's diagonal, counted in steps of the eight neighbours; the frame of the image
is an outline too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.rle import RLE

__all__ = ["BOUNDARY_RATIO", "boundary", "boundary_rle", "boundary_width", "eroded"]

BOUNDARY_RATIO = 0.02


def boundary_width(size: tuple[int, int]) -> int:
    """Pixels within which a boundary lies, of an image of (height, width)."""
    height, width = size
    return max(1, round(BOUNDARY_RATIO * float(np.sqrt(height**2 + width**2))))


def boundary(mask: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """(H, W) the pixels of a mask within `width` of one that is not of it, or of the frame."""
    return mask - eroded(mask, width)


def eroded(labels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """(H, W) the least value within `width` of each pixel; beyond the frame all is zero."""
    side = 2 * width + 1
    return np.asarray(
        cv2.erode(labels, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0.0),
        np.uint8,
    )


def boundary_rle(mask: Mapping[str, Any]) -> Mapping[str, Any]:
    """The boundary of a mask in COCO RLE, as COCO RLE; only the mask's own crop is worked on."""
    rle = RLE.from_coco(mask)
    crop, top, left = rle.decode_crop()
    if not crop.size:
        return mask
    edge = boundary(crop, boundary_width(rle.size))
    return RLE.from_crop(edge, top, left, rle.size).to_coco()
