"""Labels: where each stands, inside the picture and clear of the others."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from ovperception.drawing.canvas import Picture, Style
from ovperception.drawing.palette import INK, WHITE, Colour
from ovperception.drawing.text import fit_text, put_text, text_size

__all__ = ["LabelWriter", "Rectangle", "overlap"]

# Labels may hide this share of a picture; what is placed first is written.
_MOST_LABELS = 0.35
Rectangle = tuple[int, int, int, int]


@dataclass(slots=True)
class LabelWriter:
    """Finds places for labels, inside the picture and clear of each other, then writes them."""

    canvas: Picture
    style: Style
    labels: list[tuple[str, Rectangle, Colour]] = field(default_factory=list)

    def at_box(self, text: str, box: Rectangle, colour: Colour) -> None:
        """Above the box if there is room, else inside, below or beside it."""
        text, width, height = self._measure(text)
        x0, y0, x1, y1 = box
        self._place(
            text,
            colour,
            width,
            height,
            [
                (x0, y0 - height),
                (x0, y0),
                (x1 - width, y0 - height),
                (x0, y1),
                (x1 - width, y1),
                (x0, y1 - height),
                (x1, y0),
                (x0 - width, y0),
                (x0, (y0 + y1 - height) // 2),
                (x0, y0 - 2 * height),
                (x0, y1 + height),
            ],
        )

    def at_point(self, text: str, centre: tuple[int, int], colour: Colour) -> None:
        """Centred on (x, y) if there is room, else a little off."""
        text, width, height = self._measure(text)
        x, y = centre[0] - width // 2, centre[1] - height // 2
        shifts = [(0, 0), (0, -height), (0, height), (-width // 2, 0), (width // 2, 0)]
        shifts += [(0, -2 * height), (0, 2 * height), (-width, 0), (width, 0)]
        self._place(text, colour, width, height, [(x + dx, y + dy) for dx, dy in shifts])

    def write(self) -> None:
        """Draw all labels, the first placed on top."""
        pad = self._pad
        for text, (x0, y0, x1, y1), colour in reversed(self.labels):
            cv2.rectangle(self.canvas, (x0, y0), (x1 - 1, y1 - 1), colour, cv2.FILLED)
            ink = INK if np.dot(colour, (0.299, 0.587, 0.114)) > 125 else WHITE
            put_text(self.canvas, text, x0 + pad, y0 + pad // 2, self.style.letters, ink)

    @property
    def _pad(self) -> int:
        return max(2, self.style.letters // 4)

    def _measure(self, text: str) -> tuple[str, int, int]:
        text = fit_text(text, self.style.letters, self.canvas.shape[1] - 2 * self._pad)
        width, height = text_size(text, self.style.letters)
        return text, width + 2 * self._pad, height + 2 * (self._pad // 2)

    def _place(
        self, text: str, colour: Colour, width: int, height: int, places: list[tuple[int, int]]
    ) -> None:
        rows, columns = self.canvas.shape[:2]
        used = width * height + sum(overlap(spot, spot) for _, spot, _ in self.labels)
        if not text or height > rows or width > columns or used > _MOST_LABELS * rows * columns:
            return  # the picture is worth more than the words on it
        best: tuple[int, Rectangle] | None = None
        for x, y in places:
            x, y = min(max(x, 0), columns - width), min(max(y, 0), rows - height)
            spot = (x, y, x + width, y + height)
            covered = sum(overlap(spot, other) for _, other, _ in self.labels)
            if best is None or covered < best[0]:
                best = covered, spot
            if not covered:
                break
        assert best is not None
        self.labels.append((text, best[1], colour))


def overlap(a: Rectangle, b: Rectangle) -> int:
    """Pixels that two rectangles share."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
