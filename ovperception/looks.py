"""A picture on its way to a scene: ready for the backbone, and seen by it but by no head yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ovperception.backbones.base import Features
from ovperception.images import Geometry

__all__ = ["Look", "Prepared"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A picture as a backbone takes it.

    Attributes:
        pixels: (3, H, W) float32 on the CPU, normalised and padded.
        geometry: How the picture lies in it.
        timing: Milliseconds of ``decode`` and ``preprocess``.
    """

    pixels: Tensor
    geometry: Geometry
    timing: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """What a backbone made of one picture: all models that stand on it can go on from here.

    Attributes:
        features: The maps of the whole pass, which other pictures may have shared.
        index: Which image of the pass this is.
        geometry: How the picture lies in the network input.
        timing: Milliseconds of ``decode``, ``preprocess`` and ``backbone``, this image's share.
    """

    features: Features
    index: int
    geometry: Geometry
    timing: Mapping[str, float]

    @property
    def nbytes(self) -> int:
        """Bytes of this picture's maps and pixels."""
        pixels = self.features.images
        images = 0 if pixels is None else pixels.numel() * pixels.element_size()
        return (self.features.nbytes + images) // self.features.count

    def alone(self) -> Look:
        """The same, sharing no memory with the rest of its pass; itself if there was no rest."""
        if self.features.count == 1:
            return self
        return replace(self, features=self.features.rows([self.index]), index=0)
