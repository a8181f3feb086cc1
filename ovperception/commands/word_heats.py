"""How well every place of a picture fits each of a few words: the answer to ``--task heatmap``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ovperception.structures.arrays import canvas
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovperception.images import ImageSource

__all__ = ["WordHeat", "WordHeats"]

_Pixels = TypeVar("_Pixels", NDArray[np.float32], NDArray[np.uint8])
_SIDE = 640
"""Longest side of a kept map: what a sheet of several can show, however large the picture was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordHeat:
    """One word's similarities, -1 to 1.

    Attributes:
        name: The word.
        lowest: Least similarity of a pixel.
        highest: Greatest.
        at: (x, y) of the pixel that has it; the first of several.
        heat: (h, w) float32, the map at no more than 640 pixels a side.
    """

    name: str
    lowest: float
    highest: float
    at: tuple[int, int]
    heat: NDArray[np.float32]

    @classmethod
    def of(cls, name: str, heat: NDArray[np.float32]) -> Self:
        """From a map of the size of the picture, (H, W), which is not kept."""
        y, x = np.unravel_index(int(np.argmax(heat)), heat.shape)
        extremes = float(heat.min()), float(heat[y, x])
        small = np.ascontiguousarray(_shrunk(heat))
        return cls(name=name, lowest=extremes[0], highest=extremes[1], at=(int(x), int(y)), heat=small)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordHeats:
    """The maps of all words that were asked for.

    Attributes:
        size: (height, width) of the picture.
        words: One map a word, in their order.
    """

    size: tuple[int, int]
    words: tuple[WordHeat, ...]

    @classmethod
    def ask(cls, heatmap: Callable[[str], NDArray[np.float32]], vocabulary: Vocabulary) -> Self:
        """Ask for one word after the other, so that one map is held at its full size.

        Args:
            heatmap: (H, W) similarities with a text, whose synonyms are joined by ``|``.
            vocabulary: The words.
        """
        size, words = (0, 0), []
        for entry in vocabulary.classes:
            heat = heatmap("|".join(entry.synonyms))
            size = (int(heat.shape[0]), int(heat.shape[1]))
            words.append(WordHeat.of(entry.name, heat))
        return cls(size=size, words=tuple(words))

    def to_json(self) -> dict[str, Any]:
        """What ``ovp predict --json`` prints of them."""
        rows = [
            {"class": w.name, "lowest": round(w.lowest, 4), "highest": round(w.highest, 4), "at": list(w.at)}
            for w in self.words
        ]
        return {"heatmaps": rows}

    def draw(self, image: ImageSource) -> NDArray[np.uint8]:
        """The maps over the picture, side by side under their words, in one scale of colours.

        Raises:
            InvalidImage: Not an image, or not of `size`.
        """
        from ovperception.drawing import draw_heatmaps

        picture = _shrunk(canvas(image, self.size))
        return draw_heatmaps(picture, {word.name: word.heat for word in self.words})


def _shrunk(pixels: _Pixels) -> _Pixels:
    """(H, W) or (H, W, 3) at no more than `_SIDE` pixels a side."""
    import cv2

    height, width = pixels.shape[:2]
    scale = _SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cast("_Pixels", cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
