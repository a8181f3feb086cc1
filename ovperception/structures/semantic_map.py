"""A class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidRegions, Unsupported
from ovperception.structures.arrays import as_array, canvas, plane_shape

if TYPE_CHECKING:
    from ovperception.images import ImageSource

__all__ = ["SemanticJSON", "SemanticMap"]


class SemanticJSON(TypedDict):
    """`SemanticMap` as ``ovp predict --json`` prints it: the values of the map index the classes."""

    classes: list[str]
    label_map: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticMap:
    """A class for every pixel.

    Attributes:
        classes: the K class names asked for; labels index them.
        labels: (H, W) int32, 0 to K - 1, or -1 where nothing was decided.
        scores: (H, W) float32, the winning class's score; comparable within one image only.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shape = plane_shape(self.labels, "labels")
        object.__setattr__(self, "labels", as_array(self.labels, np.int32, shape, "labels"))
        if self.scores is not None:
            object.__setattr__(self, "scores", as_array(self.scores, np.float32, shape, "scores"))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the presented image."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def present(self) -> tuple[int, ...]:
        """The class ids that occur, ascending.

        Raises:
            InvalidRegions: a label has no class.
        """
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < -1 or high >= len(self.classes):
            raise InvalidRegions(
                "A label has no class",
                field="labels",
                expected=f"-1 to {len(self.classes) - 1}",
                got=f"{low} to {high}",
            )
        counts = np.bincount(self.labels.ravel() + 1)
        return tuple(int(i) for i in np.flatnonzero(counts[1:]))

    def to_json(self, label_map_path: str | Path) -> SemanticJSON:
        """What ``ovp predict --json`` prints, given where `save_png` wrote the map."""
        return {"classes": list(self.classes), "label_map": str(label_map_path)}

    def save_png(self, path: str | Path) -> None:
        """Write the labels as a grey PNG, 8 bits deep up to 255 classes and 16 above.

        Undecided pixels become the largest value, 255 or 65535.

        Raises:
            InvalidRegions: a label has no class.
            Unsupported: more than 65535 classes.
        """
        from ovperception.images import encode_png, write_file

        count = len(self.classes)
        if count > 65535:
            raise Unsupported("A PNG cannot tell so many classes apart", expected="at most 65535", got=count)
        _ = self.present  # refuses what would wrap around to another class
        # -1 wraps around to the largest value of either type.
        write_file(path, encode_png(self.labels.astype(np.uint8 if count <= 255 else np.uint16)))

    def draw(self, image: ImageSource) -> NDArray[np.uint8]:
        """A copy of the image tinted and labelled by class, (H, W, 3) uint8 RGB.

        Raises:
            InvalidImage: not an image, or not of `size`.
        """
        from ovperception.drawing import draw_semantic

        return draw_semantic(canvas(image, self.size), self)
