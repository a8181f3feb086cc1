"""The picture that is drawn on: a copy, the sizes that suit it, and how it is tinted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.drawing.palette import Colour
from ovperception.errors import InvalidImage

__all__ = ["Picture", "Style", "copy_of", "fitted", "tint", "tint_map"]

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Style:
    """Sizes in pixels that suit a picture."""

    line: int
    letters: int
    outline: int

    @classmethod
    def of(cls, canvas: Picture) -> Style:
        """Those of a picture."""
        scale = math.sqrt(canvas.shape[0] * canvas.shape[1])
        return cls(
            line=int(np.clip(round(scale / 270), 1, 12)),
            letters=int(np.clip(round(scale / 40), 10, 80)),
            outline=int(np.clip(round(scale / 600), 1, 8)),
        )


def copy_of(image: Picture) -> Picture:
    """A picture to draw on.

    Raises:
        InvalidImage: It is none.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise InvalidImage(
            "This cannot be drawn on", expected="(H, W, 3) uint8 RGB", got=f"{image.shape} {image.dtype}"
        )
    return image.copy(order="C")


def tint(
    canvas: Picture,
    mask: NDArray[np.uint8],
    top: int,
    left: int,
    colour: Colour,
    opacity: float,
    style: Style,
) -> None:
    """Tint and outline what a mask, whose corner lies at (left, top), covers."""
    if mask.size == 0:
        return
    region = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    flat = np.full_like(region, colour)
    cv2.copyTo(cv2.addWeighted(region, 1 - opacity, flat, opacity, 0), mask, region)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    cv2.drawContours(canvas, contours, -1, colour, style.outline, cv2.LINE_AA)


def tint_map(
    canvas: Picture, index: NDArray[np.int32], table: NDArray[np.uint8], opacity: float, style: Style
) -> None:
    """Tint by table[index], leave index 0 as it is, and draw a light line between different indices."""
    tinted = cv2.addWeighted(canvas, 1 - opacity, table[index], opacity, 0)
    cv2.copyTo(tinted, (index > 0).astype(np.uint8), canvas)
    edges = np.zeros(index.shape, dtype=np.uint8)
    edges[:, 1:] |= index[:, 1:] != index[:, :-1]
    edges[1:] |= index[1:] != index[:-1]
    if style.outline > 1:
        edges = cast("NDArray[np.uint8]", cv2.dilate(edges, np.ones((style.outline,) * 2, np.uint8)))
    lines = cv2.addWeighted(canvas, 0.25, np.full_like(canvas, 255), 0.75, 0)
    cv2.copyTo(lines, edges, canvas)


def fitted(picture: Picture, height: int, width: int) -> Picture:
    """The picture, as large as fits into a cell."""
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    if size == (picture.shape[1], picture.shape[0]):
        return picture
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cast("Picture", cv2.resize(picture, size, interpolation=how))
