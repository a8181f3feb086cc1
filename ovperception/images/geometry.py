"""How a picture lies in the input of a network, and the frame its boxes live in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidInput

__all__ = ["Geometry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a presented image lies in the network's input: resized, then padded at the right and bottom.

    Attributes:
        original: (height, width) of the presented image.
        resized: (height, width) of the picture inside the network input.
        padded: (height, width) of the network input.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.original + self.resized) < 1 or any(
            p < r for p, r in zip(self.padded, self.resized, strict=True)
        ):
            raise InvalidInput(
                "A geometry must have sides of at least 1 and a padded size no smaller than the resized one",
                got=self,
            )

    def boxes_to_original(self, boxes: NDArray[Any], *, clip: bool = True) -> NDArray[np.float32]:
        """Boxes from pixels of the network input to pixels of the presented image.

        Args:
            boxes: (..., 4) xyxy.
            clip: cut what reaches beyond the presented image.

        Returns:
            (..., 4) float32 xyxy, a new array.
        """
        return _scale(boxes, self.resized, self.original, clip)

    def boxes_to_network(self, boxes: NDArray[Any], *, clip: bool = False) -> NDArray[np.float32]:
        """Boxes from pixels of the presented image to pixels of the network input.

        Args:
            boxes: (..., 4) xyxy.
            clip: cut what reaches beyond the picture, that is, into the padding.

        Returns:
            (..., 4) float32 xyxy, a new array.
        """
        return _scale(boxes, self.original, self.resized, clip)


def _scale(
    boxes: NDArray[Any], source: tuple[int, int], target: tuple[int, int], clip: bool
) -> NDArray[np.float32]:
    ratios = np.tile([target[1] / source[1], target[0] / source[0]], 2)
    # In float64, and rounded once: a box that touches the border still touches it.
    scaled = np.asarray(boxes, dtype=np.float64) * ratios
    if clip:
        np.clip(scaled, 0, np.tile([target[1], target[0]], 2), out=scaled)
    return np.asarray(scaled, dtype=np.float32)
