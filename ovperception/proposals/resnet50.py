"""ResNet-50 as Caffe's models have it, and the feature pyramid on it.

Sources: He et al. 2015 ("Deep Residual Learning"); Lin et al. 2017 ("Feature Pyramid Networks"); detectron2
`modeling/backbone/{resnet,fpn}.py` with ``STRIDE_IN_1X1``. Frozen batch normalisation is an affine map a
channel, which `folded` puts into the convolution before it: the modules here are plain convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["STAGES", "FeaturePyramid", "ResNet50", "folded"]

STAGES = ("res2", "res3", "res4", "res5")
_BLOCKS = (3, 4, 6, 3)
_EPSILON = 1e-5


def folded(
    weight: Tensor, *, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """A convolution without bias and the batch normalisation after it, as one convolution.

    Args:
        weight: (O, I, h, w).
        scale: (O,), the normalisation's ``weight``.
        shift: (O,), its ``bias``.
        mean: (O,), its ``running_mean``.
        variance: (O,), its ``running_var``; 1e-5 is added to it.

    Returns:
        Weight (O, I, h, w) and bias (O,), float32, computed in float64.
    """
    factor = scale.double() / (variance.double() + _EPSILON).sqrt()
    bias = shift.double() - mean.double() * factor
    return (weight.double() * factor[:, None, None, None]).float(), bias.float()


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut; the stride is in the first one, as in Caffe's."""

    def __init__(self, inputs: int, width: int, *, stride: int, has_projection: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, width, 1, stride)
        self.spatial = nn.Conv2d(width, width, 3, padding=1)
        self.expand = nn.Conv2d(width, 4 * width, 1)
        self.shortcut = nn.Conv2d(inputs, 4 * width, 1, stride) if has_projection else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, 4 * width, ceil(h / stride), ceil(w / stride))."""
        beside = x if self.shortcut is None else self.shortcut(x)
        x = F.relu(self.reduce(x))
        x = F.relu(self.spatial(x))
        return F.relu(self.expand(x) + beside)


class ResNet50(nn.Module):
    """Stem and as many stages as are read.

    Args:
        stages: how many of res2..res5.
    """

    def __init__(self, stages: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, padding=3)
        inputs = 64
        layers = []
        for index, blocks in enumerate(_BLOCKS[:stages]):
            width = 64 * 2**index
            layers.append(_stage(inputs, width, blocks, stride=1 if index == 0 else 2))
            inputs = 4 * width
        self.stages = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> stage name -> (B, 256 * 2^i, h, w) of strides 4, 8, 16, 32."""
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, padding=1)
        maps = {}
        for name, layer in zip(STAGES, self.stages, strict=False):
            x = layer(x)
            maps[name] = x
        return maps


def _stage(inputs: int, width: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = Bottleneck(inputs, width, stride=stride, has_projection=True)
    rest = [Bottleneck(4 * width, width, stride=1, has_projection=False) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


class FeaturePyramid(nn.Module):
    """p2..p6 of one width from res2..res5, or from fewer stages; the last one is every second cell.

    Args:
        channels: of each stage, finest first.
        width: channels of every level.
        norm_groups: groups of a normalisation after each convolution; 0: none.
    """

    def __init__(self, channels: Sequence[int], width: int = 256, *, norm_groups: int = 0) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.lateral_norm, self.smooth_norm = (
            nn.ModuleList(
                nn.GroupNorm(norm_groups, width) if norm_groups else nn.Identity() for _ in channels
            )
            for _ in range(2)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps, each of half the size of the one before -> one level more, finest first."""
        merged = [
            norm(lateral(x)) for norm, lateral, x in zip(self.lateral_norm, self.lateral, maps, strict=True)
        ]
        for index in reversed(range(len(merged) - 1)):
            size = merged[index].shape[-2:]
            merged[index] = merged[index] + F.interpolate(merged[index + 1], size=size, mode="nearest")
        levels = [
            norm(smooth(x)) for norm, smooth, x in zip(self.smooth_norm, self.smooth, merged, strict=True)
        ]
        return [*levels, F.max_pool2d(levels[-1], 1, 2)]
