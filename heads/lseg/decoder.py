"""DPT's decoder: four maps of one picture become one embedding for every second pixel.

Ranftl et al. 2021, section 3: reassemble, then fuse from coarse to fine with RefineNet blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.lseg.config import LEVELS, LSegConfig
from ovperception.backbones.fast_linear import FastLinear

__all__ = ["Decoder", "Fusion", "Reassemble", "ResidualUnit"]

_SIZES = (4, 2, 1, 0.5)
"""How many times its own size the map of each level becomes where all are of one stride."""


class Reassemble(nn.Module):
    """Tokens, or a map that is of the same stride as all others, to a map of its level's own size.

    Args:
        channels: Of the tokens.
        out_channels: Of the map.
        size: How many times its size the map becomes: 4, 2, 1 or 0.5.
        readout: Whether there is a class token, to be mixed into every other one.
    """

    def __init__(self, channels: int, out_channels: int, size: float, *, readout: bool) -> None:
        super().__init__()
        self.readout = FastLinear(nn.Linear(2 * channels, channels), gelu=True) if readout else None
        self.project = nn.Conv2d(channels, out_channels, 1)
        self.resample: nn.Module = nn.Identity()
        if size > 1:
            self.resample = nn.ConvTranspose2d(out_channels, out_channels, int(size), stride=int(size))
        elif size < 1:
            self.resample = nn.Conv2d(out_channels, out_channels, 3, stride=round(1 / size), padding=1)

    def tokens(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 1 + h*w, C), the class token first -> (B, C', h', w')."""
        assert self.readout is not None
        cells, first = tokens[:, 1:], tokens[:, :1]
        mixed = self.readout(torch.cat((cells, first.expand_as(cells)), dim=-1))
        found: Tensor = self(mixed.transpose(1, 2).unflatten(2, size))
        return found

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h', w')."""
        out: Tensor = self.resample(self.project(maps))
        return out


class ResidualUnit(nn.Module):
    """Two convolutions, each behind a ReLU and before a batch norm, beside a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        inner = self.bn1(self.conv1(F.relu(x)))
        out: Tensor = self.bn2(self.conv2(F.relu(inner))) + x
        return out


class Fusion(nn.Module):
    """One RefineNet block: what comes from the coarser level and this level's own map, made finer.

    Args:
        channels: Of both.
        skip: Whether there is a coarser level.
    """

    def __init__(self, channels: int, *, skip: bool) -> None:
        super().__init__()
        self.skip = ResidualUnit(channels) if skip else None
        self.refine = ResidualUnit(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: Tensor, coarser: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Fuse, and bring to the size of the next finer level.

        Args:
            maps: (B, C, h, w) of this level.
            coarser: (B, C, h, w) of the last block, or None at the coarsest level.
            size: (height, width) of the result.
        """
        if self.skip is not None and coarser is not None:
            maps = coarser + self.skip(maps)
        # The reference makes it larger first: the same, for four times the work, because one of the two mixes
        # cells with weights that add up to 1, the other channels.
        return F.interpolate(self.out(self.refine(maps)), size=size, mode="bilinear", align_corners=True)


class Decoder(nn.Module):
    """Four levels to embeddings.

    Args:
        config: Sizes; the levels are what `LSegConfig.trunk` or `LSegConfig.stages` tell.
    """

    def __init__(self, config: LSegConfig) -> None:
        super().__init__()
        own = config.trunk
        channels = config.stage_channels if own is None else (own.width,) * LEVELS
        flat = own is not None or len(set(config.stage_strides)) == 1
        self.reassemble = nn.ModuleList(
            Reassemble(given, wanted, size, readout=own is not None)
            for given, wanted, size in zip(channels, config.reassemble_channels, _SIZES, strict=True)
            if flat
        )
        inputs = config.reassemble_channels if flat else channels
        self.lateral = nn.ModuleList(
            nn.Conv2d(given, config.features, 3, padding=1, bias=False) for given in inputs
        )
        self.fusion = nn.ModuleList(
            Fusion(config.features, skip=level < LEVELS - 1) for level in range(LEVELS)
        )
        self.head = nn.Conv2d(config.features, config.embed_dim, 1)
        self.grow = config.grow

    def levels(self, taps: Sequence[Tensor], size: tuple[int, int] | None = None) -> list[Tensor]:
        """What each tap becomes before the fusion: (B, C', h', w'), finest first.

        Args:
            taps: Tokens with a class token if `size` is given, else maps.
            size: (height, width) that the tokens lie in.
        """
        if not self.reassemble:
            return list(taps)
        parts = [part for part in self.reassemble if isinstance(part, Reassemble)]
        if size is None:
            return [part(tap) for part, tap in zip(parts, taps, strict=True)]
        return [part.tokens(tap, size) for part, tap in zip(parts, taps, strict=True)]

    def fuse(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """The four paths, coarsest first; the last one has `grow` times the size of the finest level."""
        paths: list[Tensor] = []
        laterals = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        height, width = laterals[0].shape[2:]
        sizes = [
            (self.grow * height, self.grow * width),
            *((int(m.shape[2]), int(m.shape[3])) for m in laterals[:-1]),
        ]
        for level in range(LEVELS - 1, -1, -1):
            coarser = paths[-1] if paths else None
            paths.append(self.fusion[level](laterals[level], coarser, sizes[level]))
        return paths

    def forward(self, taps: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """`levels` and `fuse` to (B, D, h, w), of unit length over D."""
        embeddings = self.head(self.fuse(self.levels(taps, size))[-1])
        # The reference divides by the bare norm, which is never zero in practice; here it cannot be.
        return F.normalize(embeddings, dim=1)
