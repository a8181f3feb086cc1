"""Fast single-object pictures, for contrastive training: thousands a second on one core."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ovperception.datasets.scenes.atlas import MIP_LEVELS, SPRITE_SIZE, UInt8, load_sprite
from ovperception.datasets.scenes.categories import (
    STUFF_NAMES,
    StuffName,
    load_categories,
    stuff_category,
    thing,
)
from ovperception.datasets.scenes.colours import COLOURS, Colour, tint
from ovperception.datasets.scenes.textures import texture_bank
from ovperception.errors import InvalidParameter

_PLAIN_PROBABILITY = 0.15
_NOISE_PROBABILITY = 0.1
_OCCLUDER_PROBABILITY = 0.15


def _check(size: int, fill: tuple[float, float], colour: Colour | None) -> None:
    if size < 8:
        raise InvalidParameter("The crop is too small", field="size", expected="at least 8 pixels", got=size)
    if not 0 < fill[0] <= fill[1] <= 2:
        raise InvalidParameter(
            "The fill range is impossible",
            field="fill",
            expected="(low, high) with 0 < low <= high <= 2",
            got=fill,
        )
    if colour is not None and colour not in COLOURS:
        raise InvalidParameter(
            "This colour is not known", field="colour", expected=f"one of {', '.join(COLOURS)}", got=colour
        )


def _stuff_patch(rng: np.random.Generator, stuff: StuffName, size: int) -> UInt8:
    bank = texture_bank(stuff)
    texture = bank[int(rng.integers(len(bank)))]
    side = min(int(size * rng.uniform(0.8, 2.5)), texture.shape[0])
    y, x = (int(rng.integers(texture.shape[axis] - side + 1)) for axis in (0, 1))
    patch = texture[y : y + side, x : x + side]
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    shrinks = side > size
    return cv2.resize(
        np.ascontiguousarray(patch),
        (size, size),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    ).astype(np.uint8, copy=False)


def _background(rng: np.random.Generator, stuff: StuffName | None, size: int) -> UInt8:
    if stuff is not None:
        return _stuff_patch(rng, stuff, size)
    draw = rng.random()
    if draw < _PLAIN_PROBABILITY:
        return np.full((size, size, 3), rng.integers(0, 256, 3, dtype=np.uint8), np.uint8)
    if draw < _PLAIN_PROBABILITY + _NOISE_PROBABILITY:
        cells = int(rng.integers(2, 17))
        coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return _stuff_patch(rng, STUFF_NAMES[int(rng.integers(len(STUFF_NAMES)))], size)


def _paste(
    rng: np.random.Generator,
    canvas: UInt8,
    category_id: int,
    *,
    span: float,
    centre: tuple[float, float],
    colour: Colour | None,
) -> None:
    """Draws a sprite into the canvas, its longest side ``span`` pixels, turned and flipped at random."""
    sprite = load_sprite(category_id)
    level = min(MIP_LEVELS - 1, max(0, math.floor(math.log2(SPRITE_SIZE / max(span, 1.0)))))
    rgba = sprite.mips[level]
    if colour is not None:
        rgba = tint(rgba, sprite.shades[level], colour)
    alpha = rgba[..., 3]
    premultiplied = cv2.multiply(
        rgba, cv2.merge((alpha, alpha, alpha, np.full_like(alpha, 255))), scale=1 / 255
    )
    angle = rng.uniform(-math.pi, math.pi) if rng.random() < 0.08 else math.radians(rng.normal(0, 12))
    scale = span / rgba.shape[0]
    mirrored = -1.0 if rng.random() < 0.5 else 1.0
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    middle = (rgba.shape[0] - 1) / 2
    a, b, c, d = cosine * mirrored, -sine, sine * mirrored, cosine
    matrix = np.array(
        [[a, b, centre[0] - (a + b) * middle], [c, d, centre[1] - (c + d) * middle]], np.float64
    )
    side = canvas.shape[0]
    warped = cv2.warpAffine(premultiplied, matrix, (side, side), flags=cv2.INTER_LINEAR)
    gain, offset = rng.uniform(0.86, 1.12), rng.uniform(-14, 14)
    through = 255 - warped[..., 3]
    behind = cv2.multiply(canvas, cv2.merge((through, through, through)), scale=1 / 255)
    # the offset is scaled by alpha, so that the surroundings of the object keep their light
    shifted = cv2.addWeighted(warped[..., :3], gain, cv2.merge((warped[..., 3],) * 3), offset / 255, 0)
    cv2.add(behind, shifted, dst=canvas)


def render_crop(
    rng: np.random.Generator,
    category_id: int,
    size: int = 64,
    *,
    colour: Colour | None = None,
    fill: tuple[float, float] = (0.45, 1.0),
    distractors: float = 0.4,
    stuff: StuffName | None = None,
) -> UInt8:
    """Pictures one thing, near the middle of a square.

    Args:
        rng: the source of all variation.
        category_id: which thing.
        size: side of the picture in pixels.
        colour: colour attribute; None leaves the thing its own colours.
        fill: range of the thing's longest side over the picture's side.
        distractors: probability that parts of other things show at the borders.
        stuff: what is behind; None draws stuff, plain colour or noise.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        InvalidParameter: unknown category or colour, a size under 8, a bad fill range.
    """
    _check(size, fill, colour)
    thing(category_id)
    if stuff is not None:
        stuff_category(stuff)
    things = len(load_categories()) - len(STUFF_NAMES)
    canvas = _background(rng, stuff, size)
    if rng.random() < distractors:
        for _ in range(int(rng.integers(1, 3))):
            _paste_at_border(rng, canvas, int(rng.integers(1, things + 1)), size)
    span = size * math.exp(rng.uniform(math.log(fill[0]), math.log(fill[1])))
    slack = max(size - span, 0.1 * size) / 2
    centre = tuple(size / 2 - 0.5 + rng.uniform(-slack, slack) * 0.8 for _ in range(2))
    _paste(rng, canvas, category_id, span=span, centre=(centre[0], centre[1]), colour=colour)
    if rng.random() < _OCCLUDER_PROBABILITY:
        _paste_at_border(rng, canvas, int(rng.integers(1, things + 1)), size, reach=0.02)
    return _finish(rng, canvas)


def _paste_at_border(
    rng: np.random.Generator, canvas: UInt8, category_id: int, size: int, reach: float = 0.15
) -> None:
    """Draws a thing whose centre lies on the rim of the picture, ``reach`` sizes outside or so."""
    direction = rng.uniform(-math.pi, math.pi)
    cosine, sine = math.cos(direction), math.sin(direction)
    radius = size * (0.5 + rng.uniform(0, reach)) / max(abs(cosine), abs(sine))
    centre = (size / 2 + cosine * radius, size / 2 + sine * radius)
    colour = COLOURS[int(rng.integers(len(COLOURS)))] if rng.random() < 0.3 else None
    _paste(rng, canvas, category_id, span=size * rng.uniform(0.25, 0.6), centre=centre, colour=colour)


def _finish(rng: np.random.Generator, canvas: UInt8) -> UInt8:
    draw = rng.random()
    if draw < 0.12:
        canvas = cv2.GaussianBlur(canvas, (3, 3), 0).astype(np.uint8, copy=False)
    elif draw < 0.24:
        grain = rng.integers(0, 17, canvas.shape, dtype=np.uint8)
        canvas = cv2.subtract(cv2.add(canvas, grain), np.full_like(canvas, 8)).astype(np.uint8, copy=False)
    return canvas


def render_stuff_crop(rng: np.random.Generator, stuff_id: int, size: int = 64) -> UInt8:
    """Pictures one stuff, filling a square, now and then with part of a thing at the border.

    Args:
        rng: the source of all variation.
        stuff_id: category id of the stuff.
        size: side of the picture in pixels.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        InvalidParameter: the id is no stuff's, or a size under 8.
    """
    _check(size, (1, 1), None)
    things = len(load_categories()) - len(STUFF_NAMES)
    if not things < stuff_id <= things + len(STUFF_NAMES):
        raise InvalidParameter(
            "This category id is no stuff of scenes",
            field="stuff_id",
            expected=f"an id from {things + 1} to {things + len(STUFF_NAMES)}",
            got=stuff_id,
        )
    canvas = _stuff_patch(rng, STUFF_NAMES[stuff_id - things - 1], size)
    if rng.random() < 0.3:
        _paste_at_border(rng, canvas, int(rng.integers(1, things + 1)), size)
    return _finish(rng, canvas)
