"""A colour for each class, the same in every picture."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["INK", "PAPER", "WHITE", "Colour", "as_colour", "colours", "shade"]

Colour = tuple[int, int, int]

# Each the farthest from all before it in CIE Lab, among colours neither dark, pale nor grey; then muted.
# fmt: off
_PALETTE = (
    0xEC5E44, 0x11EC11, 0xAC11EC, 0x11C5EC, 0x78852B, 0x9F5E92, 0x11DF9F, 0x1178EC, 0xECAC11, 0xEC1EB8,
    0xACD211, 0xECAC85, 0x1E856B, 0xD22B6B, 0x119F1E, 0xC578EC, 0x9FACEC, 0x9F6B11, 0xACD292, 0xAC5E5E,
    0x5EDFD2, 0xD2C55E, 0xECACDF, 0x2B78AC, 0x785EEC, 0x92DF6B, 0xEC78C5, 0xDF7811, 0x786BB8, 0x119F5E,
    0xB82BC5, 0x11DF5E, 0xEC859F, 0xEC1151, 0xEC1111, 0xB89F5E, 0xD27851, 0x1192EC, 0x6BD211, 0x85AC2B,
)
# fmt: on
WHITE, INK, PAPER = (255, 255, 255), (20, 20, 24), (250, 250, 250)


def colours(names: Sequence[str]) -> NDArray[np.uint8]:
    """A colour for each class, (K, 3) uint8 RGB.

    A name keeps its colour whatever it is asked together with, unless an earlier name of the list has taken
    it; up to 40 names get 40 different colours.
    """
    taken: set[int] = set()
    chosen = np.zeros((len(names), 3), dtype=np.uint8)
    for k, name in enumerate(names):
        if len(taken) == len(_PALETTE):
            taken.clear()
        # crc32 and not hash(): the latter differs from one process to the next.
        place = zlib.crc32(name.encode()) % len(_PALETTE)
        while place in taken:
            place = (place + 1) % len(_PALETTE)
        taken.add(place)
        chosen[k] = [_PALETTE[place] >> shift & 255 for shift in (16, 8, 0)]
    return chosen


def as_colour(rgb: NDArray[np.uint8]) -> Colour:
    """A row of a palette as OpenCV takes it."""
    return int(rgb[0]), int(rgb[1]), int(rgb[2])


def shade(rgb: NDArray[np.uint8], nth: int) -> NDArray[np.uint8]:
    """The class's own colour, then lighter and darker ones in turn."""
    towards, share = ((255, 0.0), (255, 0.35), (0, 0.3), (255, 0.55), (0, 0.5))[nth % 5]
    return np.round(rgb * (1 - share) + towards * share).astype(np.uint8)
