"""Integer-only drawing of sprites, so that masks are the same bytes on every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.scenes.atlas import MIP_LEVELS, SPRITE_SIZE, UInt8, load_sprite
from ovperception.datasets.scenes.colours import Colour, tint

_ONE = 1 << 12  # fixed-point unit of source coordinates
_WEIGHT = 1 << 6  # fixed-point unit of interpolation weights


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnObject:
    """A sprite turned and scaled, ready to be laid down anywhere.

    Attributes:
        rgba: (h, w, 4) uint8 premultiplied, cropped to the mask.
        mask: (h, w) bool, alpha over one half.
    """

    rgba: UInt8
    mask: NDArray[np.bool_]


def draw_object(
    category_id: int,
    *,
    span: float,
    angle: float,
    mirrored: bool,
    colour: Colour | None,
    gain: float,
    offset: float,
) -> DrawnObject:
    """Draws a thing on its own.

    Args:
        category_id: which thing.
        span: its longest side before turning, in pixels.
        angle: radians, clockwise in the picture.
        mirrored: flipped left to right before turning.
        colour: tint, or None.
        gain: contrast factor, about 1.
        offset: brightness offset in grey levels, about 0.
    """
    sprite = load_sprite(category_id)
    level = min(MIP_LEVELS - 1, max(0, math.floor(math.log2(SPRITE_SIZE / max(span, 1.0)) + 0.01)))
    rgba = sprite.mips[level]
    if colour is not None:
        rgba = tint(rgba, sprite.shades[level], colour)
    if mirrored:
        rgba = rgba[:, ::-1]
    warped = _turned(_premultiplied(rgba, gain, offset), span, angle)
    mask = warped[..., 3] > 127
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        return DrawnObject(rgba=warped[:0, :0], mask=mask[:0, :0])
    inside = (slice(int(ys[0]), int(ys[-1]) + 1), slice(int(xs[0]), int(xs[-1]) + 1))
    return DrawnObject(rgba=warped[inside], mask=mask[inside])


def _premultiplied(rgba: UInt8, gain: float, offset: float) -> UInt8:
    table = np.clip(np.floor((np.arange(256) - 128) * gain + 128.5 + offset), 0, 255).astype(np.uint16)
    alpha = rgba[..., 3:].astype(np.uint16)
    out = rgba.copy()
    out[..., :3] = (table[rgba[..., :3]] * alpha + 127) // 255
    return out


def _turned(source: UInt8, span: float, angle: float) -> UInt8:
    """Scales and turns a square by bilinear sampling in fixed-point."""
    side = source.shape[0]
    extent = math.ceil(span * (abs(math.cos(angle)) + abs(math.sin(angle)))) + 2
    step = side / span
    cosine, sine = round(math.cos(angle) * step * _ONE), round(math.sin(angle) * step * _ONE)
    reach = np.arange(extent, dtype=np.int64) * 2 - (extent - 1)  # twice the distance from the middle
    ys, xs = reach[:, None], reach[None, :]
    middle = (side + 1) * _ONE // 2  # of the source padded by one pixel
    source_x = ((xs * cosine + ys * sine) >> 1) + middle
    source_y = ((ys * cosine - xs * sine) >> 1) + middle
    np.clip(source_x, 0, (side + 1) * _ONE - 1, out=source_x)
    np.clip(source_y, 0, (side + 1) * _ONE - 1, out=source_y)
    padded = cv2.copyMakeBorder(source, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0)).reshape(-1, 4)
    stride = side + 2
    corner = (source_y >> 12) * stride + (source_x >> 12)
    right = (((source_x & (_ONE - 1)) >> 6)[..., None]).astype(np.int32)
    below = (((source_y & (_ONE - 1)) >> 6)[..., None]).astype(np.int32)
    upper = padded[corner] * (_WEIGHT - right) + padded[corner + 1] * right
    lower = padded[corner + stride] * (_WEIGHT - right) + padded[corner + stride + 1] * right
    blended: UInt8 = ((upper * (_WEIGHT - below) + lower * below + _WEIGHT * _WEIGHT // 2) >> 12).astype(
        np.uint8
    )
    return blended


def window(
    top: int, left: int, shape: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Gives the slices of the picture and of the object where the two meet.

    Args:
        top: row of the object's first row in the picture; may lie outside.
        left: column likewise.
        shape: (height, width) of the object.
        size: (height, width) of the picture.
    """
    y1, y2 = max(top, 0), max(min(top + shape[0], size[0]), max(top, 0))
    x1, x2 = max(left, 0), max(min(left + shape[1], size[1]), max(left, 0))
    return (slice(y1, y2), slice(x1, x2)), (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))


def lay_down(image: UInt8, drawn: DrawnObject, top: int, left: int) -> None:
    """Composes an object over the picture, in place."""
    there, part = window(top, left, drawn.mask.shape, image.shape[:2])
    rgba = drawn.rgba[part]
    through = 255 - rgba[..., 3:].astype(np.uint16)
    image[there] = np.minimum(rgba[..., :3] + (image[there] * through + 127) // 255, 255)


def cast_shadow(image: UInt8, drawn: DrawnObject, top: int, left: int, depth: float) -> None:
    """Darkens the picture softly below and beside an object, in place.

    Args:
        image: (H, W, 3) uint8.
        drawn: what casts the shadow.
        top: row of the object.
        left: column of the object.
        depth: how dark, 0 to 1.
    """
    margin = max(2, max(drawn.mask.shape) // 14)
    alpha = cv2.copyMakeBorder(
        drawn.rgba[..., 3], margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(0,)
    )
    kernel = 2 * margin + 1
    soft = cv2.blur(alpha, (kernel, kernel)).astype(np.uint32) * round(depth * 256) >> 8
    there, part = window(top, left, soft.shape, image.shape[:2])
    light = (255 - soft[part])[..., None]
    image[there] = (image[there] * light + 127) // 255
