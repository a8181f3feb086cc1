"""Large regions on smaller pictures: a trunk that looks at its input at several sizes.

A CLIP trained on small pictures knows things at about the size they have there. So each region is read where
an image pyramid shows it at that size: at one level if one does, else at the two between which it would be,
their embeddings blended by how near each is on a log scale, as a texture is between two levels of its
pyramid (Williams, SIGGRAPH 1983). The coarser levels cost 1/4, 1/16, ... of the first. Dense maps are those
of the first level.
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
        """Each mask from its levels; it covers there at least the cell it covers most."""
        weights = self._weights((masks.flatten(2).sum(-1) * (self._cell**2 / _FILL)).sqrt())
        embedded: Tensor | None = None
        for level, weight in enumerate(weights.unbind(-1)):
            if level and not weight.any():
                continue
            of = self._of(maps, level)
            size = of[self.dense_stage].shape[-2:]
            there = covered_cells(masks, (size[0], size[1])) if level else masks
            part = weight[..., None] * F.normalize(self.trunk.embed_masks(of, there), dim=-1)
            embedded = part if embedded is None else embedded + part
        assert embedded is not None
        return embedded

    def embed_boxes(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Each box from its levels."""
        counts = [len(b) for b in boxes]
        every = torch.cat(list(boxes)).float()
        weights = self._weights((every[:, 2:] - every[:, :2]).clamp(min=1).prod(-1).sqrt())
        embedded: Tensor | None = None
        grid = maps[self.dense_stage].shape[-2:]
        for level, weight in enumerate(weights.unbind(-1)):
            chosen = weight > 0
            of = self._of(maps, level)
            size = of[self.dense_stage].shape[-2:]
            scale = every.new_tensor((size[1] / grid[1], size[0] / grid[0])).repeat(2)
            parts = [b[c] * scale for b, c in zip(every.split(counts), chosen.split(counts), strict=True)]
            there = F.normalize(self.trunk.embed_boxes(of, parts), dim=-1)
            if embedded is None:
                embedded = there.new_zeros(len(every), there.shape[1])
            embedded[chosen.to(embedded.device)] += weight[chosen][:, None].to(there) * there
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

    def _weights(self, sides: Tensor) -> Tensor:
        """(...) sides of regions -> (..., levels): shares of one level or of two beside each other."""
        wanted = (sides / (_PREFERRED * self.image_size)).clamp(1, self.factors[-1]).log()
        logs = wanted.new_tensor([0.0, *(math.log(f) for f in self.factors)])
        below = (torch.bucketize(wanted, logs, right=True) - 1).clamp(max=len(self.factors) - 1)
        share = ((wanted - logs[below]) / (logs[below + 1] - logs[below])).clamp(0, 1)
        weights = wanted.new_zeros(*wanted.shape, len(logs))
        weights.scatter_(-1, below[..., None], (1 - share)[..., None])
        return weights.scatter_(-1, below[..., None] + 1, share[..., None])

    def _of(self, maps: Mapping[str, Tensor], level: int) -> Mapping[str, Tensor]:
        return {stage: maps[self._name(stage, level)] for stage in self.trunk.region_stages}

    @staticmethod
    def _name(stage: str, level: int) -> str:
        return f"{stage}/{level}" if level else stage
