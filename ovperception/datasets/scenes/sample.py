"""What a scene is: the picture and everything that is true of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.scenes.atlas import UInt8
from ovperception.datasets.scenes.colours import Colour

Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTruth:
    """One visible region: an object, or all of one stuff.

    Attributes:
        id: its value in the panoptic map, 1 and up.
        category_id: id of its `SceneCategory`.
        is_thing: object or stuff.
        colour: the colour attribute of an object, None where it has its own colours.
        box: xyxy, pixels, tight around the visible pixels; x2 and y2 are exclusive.
        area: visible pixels.
        occluded: share of the object's pixels hidden by others or outside the picture; 0 for stuff.
    """

    id: int
    category_id: int
    is_thing: bool
    colour: Colour | None
    box: tuple[float, float, float, float]
    area: int
    occluded: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneSample:
    """A picture and its truth.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        panoptic: (H, W) int32 segment ids; every pixel belongs to a segment.
        segments: things from the first drawn (undermost) to the last, then stuff.
        captions: the whole scene first, then one for each thing in the order of `segments`.
    """

    image: UInt8
    panoptic: Int32
    segments: tuple[SegmentTruth, ...]
    captions: tuple[str, ...]

    @property
    def labels(self) -> Int32:
        """(H, W) int32 category ids."""
        table = np.zeros(max(segment.id for segment in self.segments) + 1, np.int32)
        for segment in self.segments:
            table[segment.id] = segment.category_id
        labels: Int32 = table[self.panoptic]
        return labels

    @property
    def things(self) -> tuple[SegmentTruth, ...]:
        """The objects only."""
        return tuple(segment for segment in self.segments if segment.is_thing)

    def mask(self, segment_id: int) -> NDArray[np.bool_]:
        """(H, W) bool mask of the visible pixels of one segment."""
        mask: NDArray[np.bool_] = self.panoptic == segment_id
        return mask
