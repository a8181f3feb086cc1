"""Answers: boxes, masks and maps as numpy arrays, in pixels of the presented image.

All sizes are ``(height, width)``; boxes are ``xyxy`` float32 pixels, half-open; the presented image is the
one after its EXIF orientation was applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovperception.rle import RLE

if TYPE_CHECKING:
    import supervision

__all__ = ["Detections", "PanopticMap", "Segment", "SemanticMap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """N detected objects, highest score first.

    Attributes:
        size: (height, width) of the presented image.
        classes: the K class names asked for; `class_ids` index them.
        boxes: (N, 4) float32 xyxy pixels.
        scores: (N,) float32, 0-1.
        class_ids: (N,) int64.
        masks: N run-length encoded masks of the whole image, or None if the head gives boxes only.
    """

    size: tuple[int, int]
    classes: tuple[str, ...]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    masks: tuple[RLE, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticMap:
    """A class for every pixel.

    Attributes:
        classes: the K class names asked for; labels index them.
        labels: (H, W) int32, 0 to K - 1, or -1 where nothing was decided.
        scores: (H, W) float32, the winning class's score; comparable within one image only.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of a `PanopticMap`; `area` in pixels, `score` 0-1."""

    id: int
    class_id: int
    score: float
    area: int
    is_thing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticMap:
    """A segment for every pixel.

    Attributes:
        classes: the K class names asked for; `Segment.class_id` indexes them.
        ids: (H, W) int32 segment id per pixel, 0 = void.
        segments: one entry per id present in `ids`.
    """

    classes: tuple[str, ...]
    ids: NDArray[np.int32]
    segments: tuple[Segment, ...]
