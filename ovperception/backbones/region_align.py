"""ROIAlign as two matrix products a region, for the CPU.

ROIAlign (He et al. 2017; "aligned", with as many samples a bin as it has cells) reads a map bilinearly and
averages: rows and columns are weighed apart. So a region is one small matrix for the rows times its part of
the map times one for the columns, with all channels side by side, as convolutions on a CPU like them best.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["RegionWeights"]


@dataclass(frozen=True)
class RegionWeights:
    """How much each bin of N regions takes of each row and each column of a map.

    Attributes:
        images: N numbers, which image a region is of.
        rows: (N, S, h).
        columns: (N, S, w).
    """

    images: list[int]
    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, rois: Tensor, side: int, size: tuple[int, int], scale: float) -> RegionWeights:
        """The weights that `torchvision.ops.roi_align` has with ``aligned`` and ``sampling_ratio`` 0.

        Args:
            rois: (N, 5) float32: image index, then xyxy in pixels of the network input.
            side: Bins S along each side.
            size: (h, w) of the map.
            scale: Cells a pixel.
        """
        images = [int(i) for i in rois[:, 0].tolist()]
        x0, y0, x1, y1 = (rois[:, 1:] * scale).unbind(1)
        return cls(images, _axis(y0, y1, side, size[0]), _axis(x0, x1, side, size[1]))

    def halved(self) -> RegionWeights:
        """Of bins that are the mean of two by two; S must be even."""
        rows, columns = (w.unflatten(1, (-1, 2)).mean(2) for w in (self.rows, self.columns))
        return RegionWeights(self.images, rows, columns)

    def align(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (N, C, S, S), both with the channels last in memory."""
        cells = maps.permute(0, 2, 3, 1)  # (B, h, w, C)
        side, channels = self.rows.shape[1], maps.shape[1]
        crops = []
        for index, image in enumerate(self.images):
            tall, broad = _used(self.rows[index]), _used(self.columns[index])
            wide = self.columns[index, :, broad] @ cells[image, tall, broad]  # (h', S, C)
            crops.append(self.rows[index, :, tall] @ wide.flatten(1))
        found = torch.stack(crops) if crops else maps.new_zeros(0, side, side * channels)
        return found.view(-1, side, side, channels).permute(0, 3, 1, 2)


def _axis(start: Tensor, stop: Tensor, side: int, cells: int) -> Tensor:
    """(N,) and (N,) in cells -> (N, S, cells)."""
    extent = stop - start
    samples = (extent / side).ceil().clamp(min=1)  # of each bin
    number = torch.arange(int(samples.max()) if len(samples) else 1, dtype=start.dtype)
    places = (number + 0.5) / samples[:, None]  # (N, M), 0 to 1 inside a bin
    bins = torch.arange(side, dtype=start.dtype)[:, None]
    at = (start - 0.5)[:, None, None] + (bins + places[:, None]) * (extent / side)[:, None, None]  # (N, S, M)
    # What lies more than a cell outside counts nothing, what lies less reads the outermost cell.
    counts = (number < samples[:, None])[:, None] & (at >= -1) & (at <= cells) & (extent > 0)[:, None, None]
    distance = (at.clamp(0, cells - 1)[..., None] - torch.arange(cells, dtype=start.dtype)).abs()
    weights: Tensor = (F.relu(1 - distance) * counts[..., None]).sum(2) / samples[:, None, None]
    return weights


def _used(weights: Tensor) -> slice:
    """The cells that any bin of (S, cells) reads."""
    found = weights.any(0).nonzero()
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)
