"""RegionCLIP's mask head: one mask a box, whatever is in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MaskHead"]


class MaskHead(nn.Module):
    """Region maps to mask logits: a deconvolution that doubles the grid, and a projection.

    The class-agnostic `MaskRCNNConvUpsampleHead` without convolutions of detectron2, whose names it keeps.

    Args:
        channels: Of the region maps.
        hidden: Channels between.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(channels, hidden, kernel_size=2, stride=2)
        self.predictor = nn.Conv2d(hidden, 1, kernel_size=1)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.deconv.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, s, s) -> (N, 2 s, 2 s) logits."""
        logits: Tensor = self.predictor(torch.relu(self.deconv(maps)))
        return logits[:, 0]
