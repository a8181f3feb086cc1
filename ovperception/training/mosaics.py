"""Mosaics of captioned crops: the batches that a small CLIP learns from.

A canvas is tiled with crops, each with its own caption. The image tower sees the whole canvas once and pools
each tile through the attention pool with the tile as a mask, exactly as a head later pools a mask of a
scene: query = mean over the whole canvas, keys = the cells inside (the idea of contrasting mosaics is CLIM,
Wu et al., AAAI 2024). Only crops and their captions are seen: no boxes and no masks of scenes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets import scenes

__all__ = ["CaptionedCell", "MosaicBatch", "MosaicSampler"]

_STRIDE = 32
PLACED = tuple(t for t in scenes.CAPTION_TEMPLATES if "{place}" in t)


def stuff_name(category: scenes.SceneCategory) -> scenes.StuffName:
    """The name of a stuff category, as the renderer takes it."""
    return scenes.STUFF_NAMES[scenes.STUFF_NAMES.index(category.name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionedCell:
    """What is true of one tile and said of it; -1 = none."""

    category: int
    colour: int
    stuff: int
    caption: str
    said_colour: bool
    said_stuff: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MosaicBatch:
    """One step's worth of tiles.

    Attributes:
        canvases: (B, S, S, 3) uint8 RGB.
        masks: (B, n, S/32, S/32) bool, the pooled cells of each of a canvas's n tiles; None if every canvas
            is one tile at the native size, pooled as an ordinary image.
        cells: B * n descriptions, canvas by canvas.
        negatives: names of further categories, as captions that no tile carries.
        negative_categories: their category ids.
    """

    canvases: NDArray[np.uint8]
    masks: NDArray[np.bool_] | None
    cells: tuple[CaptionedCell, ...]
    negatives: tuple[str, ...]
    negative_categories: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MosaicSampler:
    """Deterministic batches: `batch(step)` is the same for the same seed, whenever it is asked for.

    Attributes:
        cells: tiles in a batch.
        negatives: extra captions in a batch.
        native_size: pixels of a single-tile canvas.
        native_share: share of the batches made of single-tile canvases.
        tile_sizes: tile sides in pixels (multiples of 32) and how often each is drawn.
        canvas: side of a mosaic canvas in pixels.
        stuff_share: share of the tiles that show stuff alone.
        colour_share: share of the object tiles that are tinted.
        seed: seed of the whole stream.
    """

    cells: int = 256
    negatives: int = 128
    native_size: int = 64
    native_share: float = 0.25
    tile_sizes: tuple[tuple[int, float], ...] = ((32, 0.08), (64, 0.57), (96, 0.2), (128, 0.15))
    canvas: int = 192
    stuff_share: float = 0.1
    colour_share: float = 0.3
    seed: int = 0

    def batch(self, step: int) -> MosaicBatch:
        """The batch of one step."""
        rng = np.random.Generator(np.random.PCG64([self.seed, step]))
        if rng.random() < self.native_share:
            tiles = [self._tile(rng, self.native_size) for _ in range(self.cells)]
            canvases, masks = np.stack([pixels for pixels, _ in tiles]), None
            cells = tuple(cell for _, cell in tiles)
        else:
            canvases, masks, cells = self._mosaics(rng)
        things = [c for c in scenes.load_categories() if c.is_thing]
        picks = rng.choice(len(things), size=min(self.negatives, len(things)), replace=False)
        texts = tuple(scenes.crop_caption(rng, things[i]) for i in picks)
        return MosaicBatch(
            canvases=canvases,
            masks=masks,
            cells=cells,
            negatives=texts,
            negative_categories=tuple(things[i].id for i in picks),
        )

    def _mosaics(
        self, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], tuple[CaptionedCell, ...]]:
        sizes, weights = zip(*self.tile_sizes, strict=True)
        tile = int(rng.choice(sizes, p=np.asarray(weights) / sum(weights)))
        side = max(self.canvas // tile, 2) * tile
        per_canvas = (side // tile) ** 2
        kept = min(per_canvas, 36)
        # Small tiles would make a huge batch and large ones a tiny one: hold the pixels constant instead.
        count = max(1, round(self.cells * self.native_size**2 / side**2))
        grid = side // _STRIDE
        canvases = np.empty((count, side, side, 3), np.uint8)
        masks = np.zeros((count, kept, grid, grid), bool)
        cells: list[CaptionedCell] = []
        for b in range(count):
            chosen = set(rng.choice(per_canvas, size=kept, replace=False).tolist())
            slot = 0
            for k in range(per_canvas):
                top, left = (k // (side // tile)) * tile, (k % (side // tile)) * tile
                pixels, cell = self._tile(rng, tile)
                canvases[b, top : top + tile, left : left + tile] = pixels
                if k in chosen:
                    masks[b, slot] = _pooled_cells(rng, grid, top, left, tile)
                    cells.append(cell)
                    slot += 1
        return canvases, masks, tuple(cells)

    def _tile(self, rng: np.random.Generator, size: int) -> tuple[NDArray[np.uint8], CaptionedCell]:
        categories = scenes.load_categories()
        things = [c for c in categories if c.is_thing]
        stuffs = [c for c in categories if not c.is_thing]
        if rng.random() < self.stuff_share:
            stuff = stuffs[int(rng.integers(len(stuffs)))]
            caption = scenes.crop_caption(rng, stuff)
            cell = CaptionedCell(
                category=stuff.id, colour=-1, stuff=-1, caption=caption, said_colour=False, said_stuff=False
            )
            return scenes.render_stuff_crop(rng, stuff.id, size), cell
        thing = things[int(rng.integers(len(things)))]
        colours = tuple(scenes.COLOURS)
        colour = int(rng.integers(len(colours))) if rng.random() < self.colour_share else -1
        ground = stuffs[int(rng.integers(len(stuffs)))] if rng.random() < 0.8 else None
        pixels = scenes.render_crop(
            rng,
            thing.id,
            size,
            colour=colours[colour] if colour >= 0 else None,
            stuff=None if ground is None else stuff_name(ground),
        )
        said_colour = colour >= 0 and rng.random() < 0.7
        said_stuff = ground is not None and rng.random() < 0.15
        caption = scenes.crop_caption(
            rng,
            thing,
            colour=colours[colour] if said_colour else None,
            stuff=stuff_name(ground) if said_stuff and ground is not None else None,
            template=PLACED[int(rng.integers(len(PLACED)))] if said_stuff else None,
        )
        return pixels, CaptionedCell(
            category=thing.id,
            colour=colour,
            stuff=ground.id if ground is not None else -1,
            caption=caption,
            said_colour=said_colour,
            said_stuff=said_stuff,
        )


def _pooled_cells(rng: np.random.Generator, grid: int, top: int, left: int, tile: int) -> NDArray[np.bool_]:
    """The tile's feature cells; for tiles of 3 or more cells a side, sometimes only an ellipse of them."""
    mask = np.zeros((grid, grid), bool)
    y, x, n = top // _STRIDE, left // _STRIDE, tile // _STRIDE
    inside = np.ones((n, n), bool)
    if n >= 3 and rng.random() < 0.6:
        axis = (np.arange(n) - (n - 1) / 2) / (n / 2)
        radii = rng.uniform(0.6, 1.2, size=2)
        inside = (axis[:, None] / radii[0]) ** 2 + (axis[None, :] / radii[1]) ** 2 <= 1
    mask[y : y + n, x : x + n] = inside
    return mask
