"""Crops of scenes with their captions, left in place: what the second stage of the tiny CLIP learns from.

A crop is known by its rectangle and by what its caption says, of every category; masks are never seen. It
is not cut out: the scene goes through the trunk once, and the rectangle (or the ellipse in it) chooses what
of the scene's features is pooled, as a head's mask will.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.datasets import scenes
from ovperception.training.mosaics import MosaicSampler

__all__ = ["CropBatch", "SceneCrops"]

_STRIDE = 32
_COLOURS = tuple(scenes.COLOURS)
_MIN_FILL = 0.35
"""Least share of a rectangle that shows its own object; below it, the caption would not be true of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CropBatch:
    """One step's worth of N captioned crops.

    Attributes:
        canvases: (B, S, S, 3) uint8 RGB.
        images: (N,) int64, the canvas of each crop.
        boxes: (N, 4) float32 xyxy, pixels of the canvas.
        cells: (N, S/32, S/32) bool, the cells of the feature map that lie in the crop; None if every canvas
            is one crop at the native size.
        classes: (N,) int64, index into `scenes.load_categories()`.
        colours: (N,) int64, index into `scenes.COLOURS`; -1 = its own colours.
    """

    canvases: NDArray[np.uint8]
    images: NDArray[np.int64]
    boxes: NDArray[np.float32]
    cells: NDArray[np.bool_] | None
    classes: NDArray[np.int64]
    colours: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneCrops:
    """A map-style dataset: item i is the batch of step `first` + i, the same whenever it is asked for.

    Attributes:
        seed: of the stream.
        megapixels: pixels of a batch; how many canvases that is depends on their size.
        native_size: pixels of a native crop.
        native_share: share of the steps that see native crops alone.
        sides: of a scene in pixels, how often it is drawn, and the largest factor it is enlarged by.
        first: step of item 0.
        count: steps to go.
    """

    seed: int
    megapixels: float
    native_size: int
    native_share: float
    sides: tuple[tuple[int, float, float], ...] = (
        (192, 0.25, 2.0),
        (256, 0.4, 2.0),
        (384, 0.25, 1.5),
        (512, 0.1, 1.5),
    )
    first: int = 0
    count: int

    def __len__(self) -> int:
        """Steps to go."""
        return self.count

    def __getitem__(self, index: int) -> CropBatch:
        """The batch of one step."""
        rng = np.random.Generator(np.random.PCG64([self.seed, self.first + index, 3]))
        pixels = 1e6 * self.megapixels
        if rng.random() < self.native_share:
            return self._native(self.first + index, round(pixels / self.native_size**2))
        shares = np.array([share for _, share, _ in self.sides])
        side, _, most = self.sides[int(rng.choice(len(self.sides), p=shares / shares.sum()))]
        enlarged = round(side * rng.uniform(1, most) / _STRIDE) * _STRIDE
        return _scenes(rng, side, enlarged, max(1, round(pixels / enlarged**2)))

    def _native(self, step: int, count: int) -> CropBatch:
        sampler = MosaicSampler(
            cells=count, native_size=self.native_size, native_share=1.0, negatives=1, seed=self.seed
        )
        batch = sampler.batch(step)
        whole = np.array([0, 0, self.native_size, self.native_size], np.float32)
        return CropBatch(
            canvases=batch.canvases,
            images=np.arange(count),
            boxes=np.tile(whole, (count, 1)),
            cells=None,
            classes=np.array([cell.category - 1 for cell in batch.cells]),
            colours=np.array([cell.colour for cell in batch.cells]),
        )


def _scenes(rng: np.random.Generator, side: int, enlarged: int, count: int) -> CropBatch:
    canvases = np.empty((count, enlarged, enlarged, 3), np.uint8)
    images: list[int] = []
    boxes: list[tuple[float, ...]] = []
    classes: list[int] = []
    colours: list[int] = []
    crowd = (8, 8 + round(side / 32))
    for b in range(count):
        sample = scenes.render_scene(rng, (side, side), count=crowd)
        canvases[b] = cv2.resize(sample.image, (enlarged, enlarged), interpolation=cv2.INTER_LINEAR)
        captioned = [*_thing_crops(sample), *_stuff_crops(rng, sample)]
        for box, category, colour in captioned:
            images.append(b)
            boxes.append(tuple(v * enlarged / side for v in box))
            classes.append(category - 1)
            colours.append(_COLOURS.index(colour) if colour else -1)
    placed = np.array(boxes, np.float32).reshape(-1, 4)
    return CropBatch(
        canvases=canvases,
        images=np.array(images, np.int64),
        boxes=placed,
        cells=np.array([_cells(rng, box, enlarged // _STRIDE) for box in placed], bool),
        classes=np.array(classes, np.int64),
        colours=np.array(colours, np.int64),
    )


_Crop = tuple[tuple[float, float, float, float], int, scenes.Colour | None]


def _thing_crops(sample: scenes.SceneSample) -> list[_Crop]:
    """The rectangle of every thing that shows enough of itself in it."""
    return [
        (segment.box, segment.category_id, segment.colour)
        for segment in sample.things
        if segment.area >= _MIN_FILL * _area(segment.box)
    ]


def _stuff_crops(rng: np.random.Generator, sample: scenes.SceneSample) -> list[_Crop]:
    """Up to two random squares that show one stuff and little else."""
    labels, side = sample.labels, sample.labels.shape[0]
    things = len(scenes.load_categories()) - len(scenes.STUFF_NAMES)
    found: list[_Crop] = []
    for _ in range(2):
        size = int(side * rng.uniform(0.15, 0.5))
        top, left = (int(v) for v in rng.integers(0, side - size + 1, size=2))
        counts = np.bincount(labels[top : top + size, left : left + size].ravel())
        category = int(counts.argmax())
        if category > things and counts[category] > 0.75 * size**2:
            found.append(((left, top, left + size, top + size), category, None))
    return found


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _cells(rng: np.random.Generator, box: NDArray[np.float32], grid: int) -> NDArray[np.bool_]:
    """Cells whose centre lies in the rectangle, half the time in the ellipse in it; the nearest, if none."""
    centres = np.arange(grid) + 0.5
    x1, y1, x2, y2 = box / _STRIDE
    across = np.abs(centres - (x1 + x2) / 2) / (x2 - x1) * 2
    down = np.abs(centres - (y1 + y2) / 2) / (y2 - y1) * 2
    if rng.random() < 0.5:
        inside = (across[None] <= 1) & (down[:, None] <= 1)
    else:
        inside = across[None] ** 2 + down[:, None] ** 2 <= 1
    if not inside.any():
        inside[down.argmin(), across.argmin()] = True
    return inside
