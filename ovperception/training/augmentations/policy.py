"""What a recipe may ask of its views, and one view as a function of (seed, index, epoch)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovperception.errors import InvalidParameter
from ovperception.training.augmentations.colour import ColourJitter
from ovperception.training.augmentations.labelled_image import LabelledImage
from ovperception.training.augmentations.placement import Placement

__all__ = ["Augmentation", "LargeScaleJitter", "ShortestEdge", "view_seed"]

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeScaleJitter:
    """The picture at a random share of the size it would fill (Ghiasi et al. 2021, section 3).

    Attributes:
        size: (height, width) that a picture at scale 1 just fits into.
        scales: smallest and largest factor of that; 0.1 to 2.0 is what Mask2Former trains with.
    """

    size: Size
    scales: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        low, high = self.scales
        if min(self.size) < 1 or not 0 < low <= high:
            raise InvalidParameter("Sizes and scales are above 0, the smaller scale first", got=self)

    def resized(self, size: Size, rng: np.random.Generator) -> Size:
        """The size a picture of this (height, width) takes."""
        scale = rng.uniform(*self.scales)
        factor = scale * min(self.size[0] / size[0], self.size[1] / size[1])
        return _rounded(size, factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortestEdge:
    """The shorter side takes one of a few lengths.

    Attributes:
        edges: lengths in pixels to choose from.
        longest: the longer side becomes no longer than this; None sets no limit.
    """

    edges: tuple[int, ...]
    longest: int | None = None

    def __post_init__(self) -> None:
        if not self.edges or min(self.edges) < 1 or (self.longest is not None and self.longest < 1):
            raise InvalidParameter("Edges are at least 1 pixel, and there is at least one", got=self)

    def resized(self, size: Size, rng: np.random.Generator) -> Size:
        """The size a picture of this (height, width) takes."""
        factor = self.edges[int(rng.integers(len(self.edges)))] / min(size)
        if self.longest is not None:
            factor = min(factor, self.longest / max(size))
        return _rounded(size, factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """The views of a recipe; in this order: flip, resize, crop, colours.

    Attributes:
        resize: how large the picture becomes; None keeps its size.
        crop: (height, width) of the window that is cut out at random, smaller where the picture is smaller;
            None shows all of it.
        flip: chance that left and right are exchanged, 0-1.
        colour: change of colours, or None.
    """

    resize: LargeScaleJitter | ShortestEdge | None = None
    crop: Size | None = None
    flip: float = 0.5
    colour: ColourJitter | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise InvalidParameter("flip is a chance", field="flip", expected="0 to 1", got=self.flip)
        if self.crop is not None and min(self.crop) < 1:
            raise InvalidParameter("A crop has at least one pixel", field="crop", got=self.crop)

    @classmethod
    def large_scale_jitter(
        cls, size: Size, scales: tuple[float, float] = (0.1, 2.0), *, colour: bool = False
    ) -> Augmentation:
        """Jitter of scale, a window of fixed size, flips."""
        return cls(
            resize=LargeScaleJitter(size=size, scales=scales),
            crop=size,
            colour=ColourJitter() if colour else None,
        )

    def placement(self, size: Size, rng: np.random.Generator) -> Placement:
        """Draw where the pixels of a picture of this (height, width) go."""
        flip = bool(rng.random() < self.flip)
        resized = size if self.resize is None else self.resize.resized(size, rng)
        window = resized
        if self.crop is not None:
            window = (min(self.crop[0], resized[0]), min(self.crop[1], resized[1]))
        top, left = (int(rng.integers(resized[k] - window[k] + 1)) for k in range(2))
        return Placement(source=size, resized=resized, top=top, left=left, window=window, flip=flip)

    def view(self, sample: LabelledImage, *, seed: int, index: int, epoch: int) -> LabelledImage:
        """The view of sample `index` in an epoch; the same whoever asks, and in whatever order."""
        rng = view_seed(seed, index, epoch)
        seen = self.placement(sample.size, rng).apply(sample)
        if self.colour is None:
            return seen
        return dataclasses.replace(seen, image=self.colour.apply(seen.image, rng))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a run's record and for what keys a cache."""
        kind = None if self.resize is None else type(self.resize).__name__
        return dataclasses.asdict(self) | {"resize_kind": kind}


def view_seed(seed: int, index: int, epoch: int) -> np.random.Generator:
    """The generator of one view."""
    return np.random.Generator(np.random.PCG64([seed, index, epoch]))


def _rounded(size: Size, factor: float) -> Size:
    """A side never vanishes, however small the factor."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
