"""What the paper calls spatial regularisation blocks (section 4.2): logits smoothed by their neighbours.

One 3x3 kernel serves all classes, so that any number of them may be asked for.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from heads.lseg.config import Activation

__all__ = ["RegularisationBlock"]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "lrelu": nn.LeakyReLU, "tanh": nn.Tanh}


class RegularisationBlock(nn.Module):
    """The depthwise or the bottleneck block, applied some times with the same weights.

    Args:
        kind: ``depthwise`` (arch_option 2), or ``bottleneck`` (1), which adds the highest logit of the cell.
        applications: How often; the activation stands between them.
        activation: Which one.
    """

    def __init__(
        self, kind: Literal["depthwise", "bottleneck"], applications: int, activation: Activation
    ) -> None:
        super().__init__()
        self.kind = kind
        self.applications = applications
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.activation = _ACTIVATIONS[activation]()

    def forward(self, logits: Tensor) -> Tensor:
        """(..., K, h, w) -> the same."""
        for step in range(self.applications):
            smooth = self.conv(logits.reshape(-1, 1, *logits.shape[-2:])).view_as(logits)
            if self.kind == "bottleneck":
                smooth = smooth + torch.amax(logits, dim=-3, keepdim=True)
            logits = smooth if step == self.applications - 1 else self.activation(smooth)
        return logits
