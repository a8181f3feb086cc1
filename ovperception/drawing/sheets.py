"""Sheets of paper: a legend of the classes, and pictures side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from ovperception.drawing.canvas import Picture, copy_of, fitted
from ovperception.drawing.palette import INK, PAPER, as_colour, colours
from ovperception.drawing.text import fit_text, put_text, text_size
from ovperception.errors import InvalidParameter

__all__ = ["grid", "legend"]


def legend(classes: Sequence[str], *, present: Sequence[int] | None = None, width: int = 640) -> Picture:
    """Names beside their colours, (h, width, 3); as high as needed.

    Args:
        classes: all class names, so that the colours are those of the other drawings.
        present: the class ids to show; all by default.
        width: in pixels.
    """
    palette = colours(classes)
    shown = range(len(classes)) if present is None else present
    size, gap = 16, 10
    places: list[tuple[int, int, int]] = []
    x, y = gap, gap
    for k in shown:
        needed = size + gap // 2 + text_size(classes[k], size)[0] + 2 * gap
        if x > gap and x + needed > width:
            x, y = gap, y + size + gap
        places.append((k, x, y))
        x += needed
    canvas = np.full((y + size + gap if places else 2 * gap, width, 3), PAPER, dtype=np.uint8)
    for k, x, y in places:
        cv2.rectangle(canvas, (x, y), (x + size - 1, y + size - 1), as_colour(palette[k]), cv2.FILLED)
        put_text(canvas, classes[k], x + size + gap // 2, y, size, INK)
    return canvas


def grid(
    pictures: Sequence[Picture],
    titles: Sequence[str] = (),
    *,
    columns: int | None = None,
    cell: tuple[int, int] | None = None,
) -> Picture:
    """Pictures side by side under their titles, on white.

    Args:
        pictures: each (H, W, 3) uint8 RGB, of any sizes; each is fitted into its cell.
        titles: one a picture, or none at all.
        columns: by default all pictures in one row up to four, and four a row beyond.
        cell: (height, width) of a cell; the first picture's size by default.

    Raises:
        InvalidParameter: no pictures, or not as many titles.
    """
    if not pictures or (titles and len(titles) != len(pictures)):
        raise InvalidParameter(
            "A grid needs pictures, and a title for each or none",
            got=f"{len(pictures)} pictures, {len(titles)} titles",
        )
    height, width = cell or pictures[0].shape[:2]
    columns = max(1, min(columns or 4, len(pictures)))
    rows = -(-len(pictures) // columns)
    gap = max(4, min(height, width) // 50)
    letters = int(np.clip(math.sqrt(height * width) * 0.045, 11, 40)) if titles else 0
    head = letters + gap if titles else 0
    pitch = (height + head + gap, width + gap)
    canvas = np.full((rows * pitch[0] + gap, columns * pitch[1] + gap, 3), PAPER, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        top, left = gap + i // columns * pitch[0], gap + i % columns * pitch[1]
        if titles:
            put_text(canvas, fit_text(titles[i], letters, width), left, top, letters, INK)
        placed = fitted(copy_of(picture), height, width)
        y, x = top + head + (height - placed.shape[0]) // 2, left + (width - placed.shape[1]) // 2
        canvas[y : y + placed.shape[0], x : x + placed.shape[1]] = placed
    return canvas
