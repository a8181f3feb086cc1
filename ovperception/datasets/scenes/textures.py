"""Procedural stuff: eight textures, different at each draw, each recognisable and unlike the others."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.scenes.atlas import UInt8
from ovperception.datasets.scenes.categories import STUFF_NAMES, StuffName

Float32 = NDArray[np.float32]
RGB = tuple[float, float, float]

_RAMP_STEPS = 1024


def _noise(rng: np.random.Generator, size: tuple[int, int], cell: tuple[float, float]) -> Float32:
    """Smooth noise (H, W) in 0..1 with bumps of about ``cell`` = (height, width) pixels."""
    rows, columns = (max(2, math.ceil(extent / step) + 1) for extent, step in zip(size, cell, strict=True))
    lattice = rng.integers(0, 65536, (rows, columns), dtype=np.uint16)
    # linear interpolation of 16-bit integers is exact, so that every machine gives the same scene
    smooth = cv2.resize(lattice, (size[1], size[0]), interpolation=cv2.INTER_LINEAR_EXACT)
    return smooth.astype(np.float32) / np.float32(65535)


def _fractal(rng: np.random.Generator, size: tuple[int, int], cell: tuple[float, float]) -> Float32:
    """Three octaves of `_noise`, in 0..1."""
    total = np.zeros(size, np.float32)
    for octave, weight in enumerate((0.55, 0.28, 0.17)):
        step = (max(cell[0] / 2**octave, 1.0), max(cell[1] / 2**octave, 1.0))
        total += np.float32(weight) * _noise(rng, size, step)
    return total


def _ramp(value: Float32, *colours: RGB) -> Float32:
    """Maps (H, W) values 0..1 onto a polyline of colours, giving (H, W, 3) in 0..255."""
    corners = np.array(colours, np.float32)
    place = np.arange(_RAMP_STEPS) * ((len(colours) - 1) / (_RAMP_STEPS - 1))
    low = np.minimum(place.astype(np.int64), len(colours) - 2)
    share = (place - low)[:, None].astype(np.float32)
    table: Float32 = corners[low] * (1 - share) + corners[low + 1] * share
    blended: Float32 = table.take(
        (np.clip(value, 0, 1) * np.float32(_RAMP_STEPS - 1)).astype(np.int32), axis=0
    )
    return blended


def _over(base: Float32, colour: RGB | float, cover: Float32) -> Float32:
    """Lays a colour over (H, W, 3) where (H, W) ``cover`` says, 0 to 1."""
    blended: Float32 = base + (np.array(colour, np.float32) - base) * cover[..., None]
    return blended


def _jitter(rng: np.random.Generator, colour: RGB, spread: float) -> RGB:
    lightness = rng.uniform(-spread, spread)
    return (
        colour[0] + lightness + rng.uniform(-spread, spread) * 0.5,
        colour[1] + lightness + rng.uniform(-spread, spread) * 0.5,
        colour[2] + lightness + rng.uniform(-spread, spread) * 0.5,
    )


def _turned(image: Float32, size: tuple[int, int], angle: float) -> Float32:
    """Samples a square texture along axes turned by ``angle`` radians, mirrored beyond its borders."""
    side = image.shape[0]
    cosine, sine = round(math.cos(angle) * 4096), round(math.sin(angle) * 4096)
    ys, xs = np.arange(size[0], dtype=np.int32)[:, None], np.arange(size[1], dtype=np.int32)[None, :]
    period = 2 * side - 2
    along = np.abs(((xs * cosine + ys * sine) >> 12) % period - (side - 1))
    across = np.abs(((ys * cosine - xs * sine) >> 12) % period - (side - 1))
    turned: Float32 = image[across, along]
    return turned


def _grass(rng: np.random.Generator, size: tuple[int, int]) -> Float32:
    scale = rng.uniform(0.7, 1.8)
    blades = _noise(rng, size, (7 * scale, 1.6 * scale)) * np.float32(0.55)
    blades += _noise(rng, size, (4 * scale, 1.1)) * np.float32(0.45)
    patches = _fractal(rng, size, (70 * scale, 90 * scale))
    value = (blades - np.float32(0.5)) * np.float32(1.15) + patches * np.float32(0.35) + np.float32(0.32)
    yellow = rng.uniform(0, 46)
    return _ramp(
        value,
        _jitter(rng, (10 + yellow * 0.4, 52, 10), 8),
        _jitter(rng, (44 + yellow, 124, 30), 12),
        _jitter(rng, (140 + yellow, 200, 70), 12),
    )


def _sky(rng: np.random.Generator, size: tuple[int, int]) -> Float32:
    height = np.linspace(0, 1, size[0], dtype=np.float32)[:, None] * np.ones((1, size[1]), np.float32)
    top = _jitter(rng, (62, 132, 218), 22)
    base = _ramp(height, top, _jitter(rng, (162, 208, 246), 14))
    scale = rng.uniform(0.6, 1.6)
    clouds = _fractal(rng, size, (40 * scale, 90 * scale))
    cover = np.clip((clouds - np.float32(rng.uniform(0.42, 0.66))) * 5, 0, np.float32(rng.uniform(0.5, 0.95)))
    return _over(base, 250, cover)


def _water(rng: np.random.Generator, size: tuple[int, int]) -> Float32:
    scale = rng.uniform(0.7, 2.0)
    swell = _noise(rng, size, (9 * scale, 42 * scale)) * np.float32(0.6)
    swell += _noise(rng, size, (4 * scale, 16 * scale)) * np.float32(0.4)
    ridge = 1 - np.abs(swell - np.float32(0.5)) * 2
    glint = np.clip((ridge - np.float32(0.86)) * 7, 0, 1)
    depth = _fractal(rng, size, (120, 160))
    green = rng.uniform(0, 40)
    deep, shallow = _jitter(rng, (4, 58 + green, 120), 10), _jitter(rng, (22, 124 + green, 172), 12)
    base = _ramp(depth * np.float32(0.6) + swell * np.float32(0.4), deep, shallow)
    return _over(base, 228, glint * np.float32(0.6))


def _sand(rng: np.random.Generator, size: tuple[int, int]) -> Float32:
    scale = rng.uniform(0.7, 1.8)
    side = max(size)
    dunes = _noise(rng, (side, side), (7 * scale, 60 * scale))
    ripples = _turned(dunes, size, rng.uniform(-0.5, 0.5))
    grain = rng.integers(0, 256, size, dtype=np.uint8).astype(np.float32) / np.float32(255)
    value = (
        ripples * np.float32(0.5) + _fractal(rng, size, (80, 80)) * np.float32(0.3) + grain * np.float32(0.2)
    )
    return _ramp(value, _jitter(rng, (176, 138, 84), 10), _jitter(rng, (240, 214, 156), 10))


def _road(rng: np.random.Generator, size: tuple[int, int]) -> Float32:
    grain = rng.integers(0, 256, size, dtype=np.uint8).astype(np.float32) / np.float32(255)
    value = grain * np.float32(0.45) + _fractal(rng, size, (50, 50)) * np.float32(0.55)
    grey = rng.uniform(-16, 22)
    base = _ramp(value, (42 + grey, 42 + grey, 46 + grey), (118 + grey, 118 + grey, 122 + grey))
    side = max(size)
    width, pitch = int(rng.integers(5, 12)), int(rng.integers(110, 220))
    lanes = np.zeros((side, side), np.float32)
    dash = int(rng.integers(28, 70))
    start = int(rng.integers(0, pitch))
    for x in range(start, side, pitch):
        lanes[:, x : x + width] = 1
    if rng.random() < 0.75:
        lanes[(np.arange(side) // dash) % 2 == 0] = 0
    paint: RGB = (236, 236, 230) if rng.random() < 0.7 else (236, 190, 40)
    return _over(base, paint, _turned(lanes, size, rng.uniform(-1.2, 1.2)) * np.float32(0.9))


def _brick(rng: np.random.Generator, size: tuple[int, int]) -> Float32:
    side = max(size)
    tall = int(rng.integers(10, 25))
    wide = round(tall * rng.uniform(1.9, 2.6))
    mortar = max(1, round(tall * rng.uniform(0.1, 0.18)))
    ys, xs = np.arange(side)[:, None], np.arange(side)[None, :]
    row = ys // tall
    shifted = xs + (row % 2) * (wide // 2)
    column = shifted // wide
    tones = rng.integers(0, 256, (side // tall + 2, side // wide + 3)).astype(np.float32) / np.float32(255)
    value = tones[row, column] * np.float32(0.55) + _fractal(rng, (side, side), (9, 9)) * np.float32(0.45)
    dark, light = ((112, 38, 26), (204, 98, 68)) if rng.random() < 0.75 else ((120, 62, 30), (212, 136, 80))
    wall = _ramp(value, _jitter(rng, dark, 12), _jitter(rng, light, 12))
    joints = (ys % tall < mortar) | (shifted % wide < mortar)
    wall[joints] = np.array(_jitter(rng, (196, 188, 176), 22), np.float32)
    return _turned(wall, size, rng.uniform(-0.12, 0.12))


def _wood(rng: np.random.Generator, size: tuple[int, int]) -> Float32:
    side = max(size)
    plank = int(rng.integers(26, 64))
    ys = np.arange(side)[:, None]
    grain = _noise(rng, (side, side), (1.6, 90)) * np.float32(0.5)
    grain += _noise(rng, (side, side), (4.5, 140)) * np.float32(0.5)
    tones = rng.integers(0, 256, (side // plank + 1, 1)).astype(np.float32) / np.float32(255)
    value = grain * np.float32(0.6) + tones[ys // plank, 0] * np.float32(0.4)
    warm = rng.uniform(-24, 30)
    boards = _ramp(
        value,
        _jitter(rng, (88 + warm, 50 + warm * 0.7, 22), 8),
        _jitter(rng, (206 + warm, 150 + warm, 92), 10),
    )
    boards[(np.arange(side) % plank) < 2] *= np.float32(0.35)
    return _turned(boards, size, rng.choice((0.0, math.pi / 2)) + rng.uniform(-0.3, 0.3))


def _snow(rng: np.random.Generator, size: tuple[int, int]) -> Float32:
    scale = rng.uniform(0.7, 1.8)
    drifts = _fractal(rng, size, (60 * scale, 110 * scale))
    snow = _ramp(
        (drifts - np.float32(0.5)) * np.float32(1.8) + np.float32(0.6),
        _jitter(rng, (188, 202, 226), 8),
        _jitter(rng, (228, 236, 248), 6),
        (253, 254, 255),
    )
    sparkle = rng.random(size, dtype=np.float32) > np.float32(0.985)
    snow[sparkle] = 255
    shadow = rng.random(size, dtype=np.float32) > np.float32(0.985)
    snow[shadow] -= 26
    return snow


_PAINTERS: dict[StuffName, Callable[[np.random.Generator, tuple[int, int]], Float32]] = {
    "grass": _grass,
    "sky": _sky,
    "water": _water,
    "sand": _sand,
    "road": _road,
    "brick": _brick,
    "wood": _wood,
    "snow": _snow,
}


def paint_stuff(rng: np.random.Generator, stuff: StuffName, size: tuple[int, int]) -> UInt8:
    """Paints one patch of stuff.

    Args:
        rng: the source of all its variation.
        stuff: which of `STUFF_NAMES`.
        size: (height, width).

    Returns:
        (H, W, 3) uint8 RGB.
    """
    texture = np.clip(_PAINTERS[stuff](rng, size), 0, 255).astype(np.uint8)
    return texture


@functools.cache
def texture_bank(stuff: StuffName, variants: int = 8, side: int = 256) -> tuple[UInt8, ...]:
    """Gives ``variants`` fixed patches (side, side, 3) of a stuff, for renderers that cannot wait."""
    rng = np.random.Generator(np.random.PCG64([20, STUFF_NAMES.index(stuff)]))
    return tuple(paint_stuff(rng, stuff, (side, side)) for _ in range(variants))
