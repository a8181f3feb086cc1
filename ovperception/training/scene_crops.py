"""Crops of scenes with their captions, left in place: what the second stage of the tiny CLIP learns from.

A crop is known by its rectangle and by what its caption says, of every category; masks are never seen. It
is not cut out: the scene goes through the trunk once, and the rectangle (or the ellipse in it) chooses what
of the scene's features is pooled, as a head's mask will.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.datasets import scenes
from ovperception.training.mosaics import MosaicBatch, MosaicSampler

__all__ = ["CropBatch", "SceneCrops"]

_STRIDE = 32
_COLOURS = tuple(scenes.COLOURS)
_SCENE, _CROWD, _VIEWS = 480, (10, 26), 4
"""Side of a composed scene in pixels, how many things it has, and how many windows of it are shown."""
_MIN_INSIDE = 0.7
"""Least share of a rectangle that must lie in a window."""
_MIN_FILL = 0.35
"""Least share of a rectangle that shows its own object; below it, the caption would not be true of it."""
_SLOPPINESS = 0.12
"""Standard deviation of a shaken box's edges, in sides of the box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CropBatch:
    """One step's worth of N captioned crops.

    Attributes:
        canvases: (B, S, S, 3) uint8 RGB.
        images: (N,) int64, the canvas of each crop.
        boxes: (N, 4) float32 xyxy, pixels of the canvas; half of them roughly drawn.
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

    A batch is either native crops, or canvases of one size of which some are scenes and the others mosaics.

    Attributes:
        seed: of the stream.
        megapixels: pixels of a batch; how many canvases that is depends on their size.
        native_size: pixels of a native crop.
        native_share: share of the steps that see native crops alone.
        colour_share: share of the things that are tinted.
        scene_share: share of scenes among the other steps' canvases.
        sides: of a canvas in pixels, and how often it is drawn.
        factors: least and largest factor that a scene is resized by; their logarithm is drawn evenly.
        sizes: least and largest side, in pixels of the canvas, of what is named; a frozen CLIP with a pyramid
            never has to name much larger things.
        tiles: sides of a mosaic's tiles in pixels, and how often they are drawn.
        first: step of item 0.
        count: steps to go.
    """

    seed: int
    megapixels: float
    native_size: int
    native_share: float
    colour_share: float
    scene_share: float = 0.6
    sides: tuple[tuple[int, float], ...] = ((192, 0.3), (256, 0.45), (384, 0.25))
    factors: tuple[float, float] = (0.4, 1.75)
    sizes: tuple[float, float] = (24.0, 100.0)
    tiles: tuple[tuple[int, float], ...] = ((64, 0.8), (96, 0.2))
    first: int = 0
    count: int

    def __len__(self) -> int:
        """Steps to go."""
        return self.count

    def __getitem__(self, index: int) -> CropBatch:
        """The batch of one step."""
        step = self.first + index
        rng = np.random.Generator(np.random.PCG64([self.seed, step, 3]))
        pixels = 1e6 * self.megapixels
        if rng.random() < self.native_share:
            return self._native(step, round(pixels / self.native_size**2))
        side = _drawn(rng, self.sides)
        count = max(2, round(pixels / side**2))
        scenic = min(max(round(count * self.scene_share), 1), count - 1)
        crops = _Crops(side=side)
        for k in range(scenic):
            if k % _VIEWS == 0:
                scene, found = _scene(rng, self.colour_share)
            canvas, seen = self._view(rng, scene, found, side)
            crops.add(canvas, seen)
        mosaics = MosaicSampler(
            cells=round((count - scenic) * side**2 / self.native_size**2),
            native_size=self.native_size,
            native_share=0.0,
            canvas=side,
            tile_sizes=((_drawn(rng, self.tiles), 1.0),),
            negatives=1,
            colour_share=self.colour_share,
            seed=self.seed,
        )
        for canvas, found in _mosaics(rng, mosaics.batch(step), side):
            crops.add(canvas, found)
        return crops.batch(rng)

    def _view(
        self, rng: np.random.Generator, scene: NDArray[np.uint8], crops: list[_Crop], side: int
    ) -> tuple[NDArray[np.uint8], list[_Crop]]:
        """A window of a scene, resized to the side of a canvas, and what can be said of its parts."""
        least = max(self.factors[0], side / _SCENE)
        factor = math.exp(rng.uniform(math.log(least), math.log(self.factors[1])))
        window = min(round(side / factor), _SCENE)
        top, left = (int(v) for v in rng.integers(0, _SCENE - window + 1, size=2))
        cut = scene[top : top + window, left : left + window]
        shrinks = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
        canvas = cv2.resize(cut, (side, side), interpolation=shrinks).astype(np.uint8, copy=False)
        moved = [_windowed(crop, (left, top), window, side / window) for crop in crops]
        return canvas, [c for c in moved if c and self.sizes[0] <= math.sqrt(_area(c.box)) <= self.sizes[1]]

    def _native(self, step: int, count: int) -> CropBatch:
        sampler = MosaicSampler(
            cells=count,
            native_size=self.native_size,
            native_share=1.0,
            negatives=1,
            colour_share=self.colour_share,
            seed=self.seed,
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


def _drawn(rng: np.random.Generator, choices: tuple[tuple[int, float], ...]) -> int:
    values, shares = zip(*choices, strict=True)
    return int(rng.choice(values, p=np.asarray(shares) / sum(shares)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crop:
    """A rectangle (xyxy, pixels of the canvas), its category's id and its colour's index (-1: its own)."""

    box: tuple[float, float, float, float]
    category: int
    colour: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crops:
    """Canvases of one size with the crops on them, as they are collected."""

    side: int
    canvases: list[NDArray[np.uint8]] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    crops: list[_Crop] = field(default_factory=list)

    def add(self, canvas: NDArray[np.uint8], crops: list[_Crop]) -> None:
        self.images.extend([len(self.canvases)] * len(crops))
        self.canvases.append(canvas)
        self.crops.extend(crops)

    def batch(self, rng: np.random.Generator) -> CropBatch:
        boxes = np.array([crop.box for crop in self.crops], np.float32).reshape(-1, 4)
        grid = self.side // _STRIDE
        sloppy = _shaken(rng, boxes, self.side)
        cells = [_cells(rng, box, grid) for box in sloppy]
        return CropBatch(
            canvases=np.stack(self.canvases),
            images=np.array(self.images, np.int64),
            boxes=sloppy,
            cells=np.array(cells, bool).reshape(-1, grid, grid),
            classes=np.array([crop.category - 1 for crop in self.crops], np.int64),
            colours=np.array([crop.colour for crop in self.crops], np.int64),
        )


def _shaken(rng: np.random.Generator, boxes: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Half of the boxes (N, 4) with their edges moved, as a proposer's would be; none leaves the canvas."""
    extents = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moves = _SLOPPINESS * rng.standard_normal(boxes.shape) * (rng.random((len(boxes), 1)) < 0.5)
    moved = boxes + extents * np.clip(moves, -0.3, 0.3)
    shaken: NDArray[np.float32] = np.clip(moved, 0, side).astype(np.float32)
    return shaken


def _scene(rng: np.random.Generator, colour_share: float) -> tuple[NDArray[np.uint8], list[_Crop]]:
    """A scene and what can be said of its parts."""
    sample = scenes.render_scene(rng, (_SCENE, _SCENE), count=_CROWD, colour_probability=colour_share)
    return sample.image, [*_thing_crops(sample), *_stuff_crops(rng, sample)]


def _windowed(crop: _Crop, corner: tuple[int, int], window: int, scale: float) -> _Crop | None:
    """A crop in a square window of the scene, resized; None if less than most of it is inside."""
    offset = np.tile(corner, 2)
    inside = np.clip(np.subtract(crop.box, offset), 0, window)
    x1, y1, x2, y2 = (float(v) for v in inside * scale)
    box = (x1, y1, x2, y2)
    if _area(box) < _MIN_INSIDE * _area(crop.box) * scale**2:
        return None
    return _Crop(box=box, category=crop.category, colour=crop.colour)


def _mosaics(
    rng: np.random.Generator, batch: MosaicBatch, side: int
) -> Iterator[tuple[NDArray[np.uint8], list[_Crop]]]:
    """Mosaics cut to a side and rolled by less than a cell, so that tiles do not lie on the feature grid."""
    assert batch.masks is not None
    per_canvas = batch.masks.shape[1]
    dy, dx = (int(v) for v in rng.integers(-_STRIDE // 2, _STRIDE // 2 + 1, size=2))
    for b, canvas in enumerate(batch.canvases):
        cells = batch.cells[b * per_canvas : (b + 1) * per_canvas]
        crops = []
        for cell, mask in zip(cells, batch.masks[b], strict=True):
            ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            y1, y2 = (float(np.clip(_STRIDE * v + dy, 0, side)) for v in (ys[0], ys[-1] + 1))
            x1, x2 = (float(np.clip(_STRIDE * v + dx, 0, side)) for v in (xs[0], xs[-1] + 1))
            if y2 - y1 >= _STRIDE and x2 - x1 >= _STRIDE:
                crops.append(_Crop(box=(x1, y1, x2, y2), category=cell.category, colour=cell.colour))
        yield _fitted(np.roll(canvas, (dy, dx), axis=(0, 1)), side), crops


def _fitted(canvas: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Cut or padded (mirrored) at the right and the bottom."""
    cut = canvas[:side, :side]
    missing = side - cut.shape[0]
    return np.pad(cut, ((0, missing), (0, missing), (0, 0)), mode="symmetric") if missing else cut


def _thing_crops(sample: scenes.SceneSample) -> list[_Crop]:
    """The rectangle of every thing that shows enough of itself in it."""
    return [
        _Crop(
            box=segment.box,
            category=segment.category_id,
            colour=_COLOURS.index(segment.colour) if segment.colour else -1,
        )
        for segment in sample.things
        if segment.area >= _MIN_FILL * _area(segment.box)
    ]


def _stuff_crops(rng: np.random.Generator, sample: scenes.SceneSample) -> list[_Crop]:
    """Up to eight random squares that show one stuff and little else."""
    labels, side = sample.labels, sample.labels.shape[0]
    things = len(scenes.load_categories()) - len(scenes.STUFF_NAMES)
    found: list[_Crop] = []
    for _ in range(8):
        size = int(side * rng.uniform(0.08, 0.4))
        top, left = (int(v) for v in rng.integers(0, side - size + 1, size=2))
        counts = np.bincount(labels[top : top + size, left : left + size].ravel())
        category = int(counts.argmax())
        if category > things and counts[category] > 0.75 * size**2:
            found.append(_Crop(box=(left, top, left + size, top + size), category=category, colour=-1))
    return found


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _cells(rng: np.random.Generator, box: NDArray[np.float32], grid: int) -> NDArray[np.bool_]:
    """Cells whose centre lies in the rectangle, half the time in the ellipse in it; the nearest, if none."""
    centres = np.arange(grid) + 0.5
    x1, y1, x2, y2 = box / _STRIDE
    across = np.abs(centres - (x1 + x2) / 2) / (x2 - x1) * 2
    down = np.abs(centres - (y1 + y2) / 2) / (y2 - y1) * 2
    inside: NDArray[np.bool_] = (across[None] <= 1) & (down[:, None] <= 1)
    if rng.random() < 0.5:
        inside &= across[None] ** 2 + down[:, None] ** 2 <= 1
    if not inside.any():
        inside[down.argmin(), across.argmin()] = True
    return inside
