"""Colour attributes: a tint that keeps the shading of a sprite and reads clearly as one colour."""

from __future__ import annotations

import functools
from typing import Literal, get_args

import numpy as np

from ovperception.datasets.scenes.atlas import UInt8

Colour = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
COLOURS: tuple[Colour, ...] = get_args(Colour)

# shade of the darkest, the middle and the lightest parts, RGB
_RAMPS: dict[Colour, tuple[tuple[int, int, int], ...]] = {
    "red": ((84, 0, 4), (212, 22, 26), (255, 116, 104)),
    "orange": ((120, 48, 0), (240, 124, 8), (255, 188, 100)),
    "yellow": ((128, 96, 0), (240, 204, 16), (255, 244, 130)),
    "green": ((0, 56, 12), (28, 150, 44), (132, 224, 124)),
    "blue": ((4, 20, 100), (28, 84, 220), (132, 176, 255)),
    "purple": ((44, 4, 84), (128, 40, 188), (204, 140, 246)),
    "pink": ((150, 30, 92), (248, 120, 180), (255, 204, 226)),
    "brown": ((44, 22, 8), (118, 68, 30), (176, 126, 80)),
    "black": ((6, 6, 8), (38, 38, 42), (100, 100, 106)),
    "white": ((168, 170, 176), (232, 233, 236), (255, 255, 255)),
}
_KEPT_EIGHTHS = 1  # share of the sprite's own colours that stays


@functools.cache
def _table(colour: Colour) -> UInt8:
    ramp = np.array(_RAMPS[colour], np.float64)
    table = np.stack([np.interp(np.arange(256), (0, 140, 255), ramp[:, c]) for c in range(3)], axis=1)
    rounded: UInt8 = np.round(table).astype(np.uint8)
    return rounded


def tint(rgba: UInt8, shade: UInt8, colour: Colour) -> UInt8:
    """Paints a sprite in a colour.

    Args:
        rgba: (S, S, 4) straight-alpha sprite.
        shade: (S, S) lightness that picks the place on the colour's ramp.
        colour: which colour.

    Returns:
        (S, S, 4) uint8; alpha is unchanged.
    """
    tinted = rgba.copy()
    painted = _table(colour)[shade].astype(np.uint16) * (8 - _KEPT_EIGHTHS)
    tinted[..., :3] = (painted + rgba[..., :3] * np.uint16(_KEPT_EIGHTHS)) >> 3
    return tinted
