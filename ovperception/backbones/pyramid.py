"""Large regions on smaller pictures: a trunk that looks at its input at several sizes.

A CLIP trained on small pictures knows things at about the size they have there. So each region is pooled from
the level of an image pyramid at which it comes nearest to that size, as a region of a feature pyramid is read
from the level that fits it (Lin et al., CVPR 2017, equation 1). The coarser levels cost 1/4, 1/16, ... of the
first. Dense maps are those of the first level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ovperception.backbones.regions import covered_cells
from ovperception.errors import InvalidParameter, Unsupported

if TYPE_CHECKING:
    from ovperception.backbones.base import FeatureSpec
    from ovperception.backbones.clip import Trunk

__all__ = ["PyramidTrunk"]

_PREFERRED = 0.7
"""Side of a region over the side of the pictures the CLIP was trained on, where it is named best."""
_FILL = 0.65
"""Share of its box that a thing's mask fills, about."""


class PyramidTrunk:
    """A trunk and the factors by which its input is shrunk for large regions.

    Args:
        trunk: looks at every level.
        factors: above 1, rising; level 0 is the input itself.

    Raises:
        InvalidParameter: factors that are no such row.
    """

    def __init__(self, trunk: Trunk, factors: Sequence[float]) -> None:
        rising = all(a < b for a, b in zip((1.0, *factors), factors, strict=False))
        if not factors or not rising:
            raise InvalidParameter(
                "The pyramid's factors do not rise",
                field="pyramid",
                expected="numbers above 1, each above the one before, such as [2, 4]",
                got=list(factors),
            )
        self.trunk, self.factors = trunk, tuple(float(f) for f in factors)
        self.family, self.dense_stage, self.image_size = trunk.family, trunk.dense_stage, trunk.image_size
        self.stages: Mapping[str, FeatureSpec] = trunk.stages
        self.region_stages = tuple(
            self._name(stage, level)
            for level in range(len(self.factors) + 1)
            for stage in trunk.region_stages
        )
        self._cell = max(stage.stride for stage in trunk.stages.values())

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """The trunk's maps, and of every further level those that regions are read from, as ``res5/1``."""
        found = self.trunk.maps(images)
        for level, factor in enumerate(self.factors, start=1):
            size = [max(round(n / factor / self._cell), 1) * self._cell for n in images.shape[2:]]
            small = F.interpolate(images.float(), size, mode="bilinear", antialias=True).to(images.dtype)
            maps = self.trunk.maps(small)
            found |= {self._name(stage, level): maps[stage] for stage in self.trunk.region_stages}
        return found

    def embed_dense(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Of the first level."""
        return self.trunk.embed_dense(maps)

    def embed_masks(self, maps: Mapping[str, Tensor], masks: Tensor) -> Tensor:
        """Each mask from its level; it covers there at least the cell it covers most."""
        sides = (masks.flatten(2).sum(-1) * (self._cell**2 / _FILL)).sqrt()
        levels = self._levels(sides)
        embedded = self.trunk.embed_masks(maps, masks)
        for level in range(1, len(self.factors) + 1):
            chosen = levels == level
            if chosen.any():
                of = self._of(maps, level)
                size = of[self.dense_stage].shape[-2:]
                there = self.trunk.embed_masks(of, covered_cells(masks, (size[0], size[1])))
                embedded = torch.where(chosen[..., None], there, embedded)
        return embedded

    def embed_boxes(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Each box from its level."""
        counts = [len(b) for b in boxes]
        every = torch.cat(list(boxes)).float()
        levels = self._levels((every[:, 2:] - every[:, :2]).clamp(min=1).prod(-1).sqrt())
        embedded: Tensor | None = None
        grid = maps[self.dense_stage].shape[-2:]
        for level in range(len(self.factors) + 1):
            chosen = levels == level
            of = self._of(maps, level)
            size = of[self.dense_stage].shape[-2:]
            scale = every.new_tensor((size[1] / grid[1], size[0] / grid[0])).repeat(2)
            parts = [b[c] * scale for b, c in zip(every.split(counts), chosen.split(counts), strict=True)]
            there = self.trunk.embed_boxes(of, parts)
            if embedded is None:
                embedded = there.new_zeros(len(every), there.shape[1])
            embedded[chosen.to(embedded.device)] = there
        assert embedded is not None
        return embedded

    def box_maps(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Iterator[Tensor]:
        """Of the first level."""
        inner = getattr(self.trunk, "box_maps", None)
        if inner is None:
            raise Unsupported(
                f"A backbone of the family {self.family!r} runs no stage on single boxes",
                field="backbone",
                expected="a ModifiedResNet, such as open_clip:RN50",
            )
        yield from inner(maps, boxes)

    def _levels(self, sides: Tensor) -> Tensor:
        """The level at which regions of these sides come nearest to the preferred one, on a log scale."""
        wanted = (sides / (_PREFERRED * self.image_size)).clamp(min=1e-6).log()
        logs = wanted.new_tensor([0.0, *(math.log(f) for f in self.factors)])
        return (wanted[..., None] - logs).abs().argmin(-1)

    def _of(self, maps: Mapping[str, Tensor], level: int) -> Mapping[str, Tensor]:
        return {stage: maps[self._name(stage, level)] for stage in self.trunk.region_stages}

    @staticmethod
    def _name(stage: str, level: int) -> str:
        return f"{stage}/{level}" if level else stage
