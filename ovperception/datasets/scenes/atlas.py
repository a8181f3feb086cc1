"""The sprites of the world: straight-alpha RGBA thumbnails of nameable things, at several sizes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.scenes.categories import load_categories

UInt8 = NDArray[np.uint8]

SPRITE_SIZE = 128
ATLAS_COLUMNS = 26
MIP_LEVELS = 4
_ATLAS_FILE = Path(__file__).parent / "data" / "atlas.webp"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sprite:
    """One thing at full, half, quarter and eighth size.

    Attributes:
        mips: ``MIP_LEVELS`` arrays (S, S, 4) uint8, straight-alpha RGBA, S = 128, 64, 32, 16.
        shades: for each mip an (S, S) uint8 lightness, stretched over the sprite, that a tint colours.
        extent: (height, width) of the tight box around alpha, as a fraction of the sprite's side.
    """

    mips: tuple[UInt8, ...]
    shades: tuple[UInt8, ...]
    extent: tuple[float, float]


def _halve(rgba: UInt8) -> UInt8:
    """Averages 2x2 pixels weighted by alpha, in integers."""
    alpha = rgba[..., 3:].astype(np.int32)
    colour = rgba[..., :3].astype(np.int32) * alpha
    sums = [
        part[0::2, 0::2] + part[1::2, 0::2] + part[0::2, 1::2] + part[1::2, 1::2] for part in (colour, alpha)
    ]
    weight = np.maximum(sums[1], 1)
    return np.concatenate([(sums[0] + weight // 2) // weight, (sums[1] + 2) // 4], axis=2).astype(np.uint8)


def _luma(rgb: UInt8) -> NDArray[np.int32]:
    luma: NDArray[np.int32] = rgb.astype(np.int32) @ np.array([77, 150, 29], np.int32) >> 8
    return luma


def _shade_table(luma: NDArray[np.int32]) -> UInt8:
    """Maps the lightness of a sprite's solid pixels so that its median comes to the middle of a tint.

    At least 48 levels lie on either side: a flat sprite keeps its flatness.
    """
    ordered = np.sort(luma)
    rim = len(ordered) // 50
    low, middle, high = (int(ordered[place]) for place in (rim, len(ordered) // 2, len(ordered) - 1 - rim))
    low, high = min(low, middle - 48), max(high, middle + 48)
    table: UInt8 = np.interp(np.arange(256), (low, middle, high), (16, 140, 255)).astype(np.uint8)
    return table


def make_sprite(rgba: UInt8) -> Sprite:
    """Builds the mips and shades of one (128, 128, 4) sprite."""
    mips = [rgba]
    for _ in range(MIP_LEVELS - 1):
        mips.append(_halve(mips[-1]))
    solid = rgba[..., 3] > 127
    table = _shade_table(_luma(rgba[solid][:, :3]))
    ys, xs = np.nonzero(solid)
    extent = (float(ys.max() - ys.min() + 1) / SPRITE_SIZE, float(xs.max() - xs.min() + 1) / SPRITE_SIZE)
    return Sprite(mips=tuple(mips), shades=tuple(table[_luma(mip[..., :3])] for mip in mips), extent=extent)


@functools.cache
def _atlas_sheet() -> UInt8:
    sheet = cv2.imread(str(_ATLAS_FILE), cv2.IMREAD_UNCHANGED)
    if sheet is None or sheet.ndim != 3 or sheet.shape[2] != 4:
        raise RuntimeError(f"{_ATLAS_FILE} is damaged or missing: reinstall the package")
    return np.ascontiguousarray(sheet[..., [2, 1, 0, 3]]).astype(np.uint8, copy=False)


@functools.cache
def load_sprite(category_id: int) -> Sprite:
    """Gives the sprite of a thing, built at the first call and then kept.

    Args:
        category_id: id of a thing, 1 to the number of things.
    """
    row, column = divmod(category_id - 1, ATLAS_COLUMNS)
    y, x = row * SPRITE_SIZE, column * SPRITE_SIZE
    return make_sprite(_atlas_sheet()[y : y + SPRITE_SIZE, x : x + SPRITE_SIZE])


def load_atlas() -> dict[int, Sprite]:
    """Gives all sprites by category id (things only)."""
    return {category.id: load_sprite(category.id) for category in load_categories() if category.is_thing}
