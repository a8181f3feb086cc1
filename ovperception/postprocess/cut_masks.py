"""Masks cut out of the picture, each no larger than what it covers."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ovperception.images import Geometry
from ovperception.postprocess.resize import Resizer
from ovperception.rle import RLE

__all__ = ["CutMask", "cut_out"]

_MOST_PIXELS = 2**24
"""Pixels that are held at once; the rest is encoded, so that no picture fills the memory."""


class CutMask:
    """One mask at full resolution.

    Attributes:
        box: x1, y1, x2, y2 of the smallest box around it, in whole pixels.
        size: (height, width) of the image.
        sureness: The mean of its probabilities where they exceed a half, 0-1.
    """

    __slots__ = ("_crop", "_rle", "box", "size", "sureness")

    def __init__(
        self,
        crop: NDArray[np.bool_],
        box: tuple[int, int, int, int],
        size: tuple[int, int],
        sureness: float,
    ) -> None:
        self.box, self.size, self.sureness = box, size, sureness
        self._crop: NDArray[np.bool_] | None = crop
        self._rle: RLE | None = None

    def rle(self) -> RLE:
        """Encoded; a mask that several classes share is encoded once."""
        if self._rle is None:
            assert self._crop is not None  # there until it is encoded
            self._rle = RLE.from_crop(self._crop, self.box[1], self.box[0], self.size)
            self._crop = None
        return self._rle

    def pixels(self) -> NDArray[np.bool_]:
        """What it covers of its box."""
        if self._crop is not None:
            return self._crop
        return self.rle().decode_crop()[0].astype(np.bool_)


def cut_out(mask_logits: Tensor, queries: Tensor, geometry: Geometry) -> dict[int, CutMask]:
    """The masks of the named queries; empty ones are left out.

    Args:
        mask_logits: (Q, h, w) of one image.
        queries: (N,) indices; those named twice are cut out once.
        geometry: Of that image.
    """
    resizer = Resizer(geometry, (mask_logits.shape[-2], mask_logits.shape[-1]), mask_logits.device)
    cut: dict[int, CutMask] = {}
    held = 0
    for query in queries.unique().tolist():
        logits = mask_logits[query]
        window = resizer.extent(logits > 0)
        if not all(window.size):
            continue
        values = resizer.one(logits, window)
        rows, columns = (values.amax(dim=d).gt(0).nonzero()[:, 0].tolist() for d in (1, 0))
        if not rows:
            continue
        values = values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        crop = (values > 0).cpu().numpy()
        # Outside the mask minus infinity, so that its sureness is 0.
        total = float(F.threshold(values, 0, -torch.inf).sigmoid_().sum())
        top, left = window.top + rows[0], window.left + columns[0]
        box = (left, top, left + crop.shape[1], top + crop.shape[0])
        sureness = total / (int(np.count_nonzero(crop)) + 1e-6)
        cut[query] = CutMask(crop, box, geometry.original, sureness)
        held += crop.size
        if held > _MOST_PIXELS:
            cut[query].rle()
    return cut
