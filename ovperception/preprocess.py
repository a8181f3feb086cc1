"""From a picture to the network's input: resize, normalise, pad.

The order and the arithmetic are those of detectron2, which the official heads were trained behind
(`ResizeShortestEdge`, `ImageList.from_tensors`): resize in uint8 by Pillow, normalise in float32, and only
then pad with zeros at the right and bottom, so that the padding is the mean colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidImage, InvalidParameter, MissingDependency
from ovperception.images import MAX_PIXELS, Geometry

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Interpolation", "Preprocessing", "PreprocessingDict"]

Interpolation = Literal["pillow_bilinear", "pillow_bicubic", "cv2_linear"]


class PreprocessingDict(TypedDict):
    """`Preprocessing` as a bundle's model card spells it."""

    mean: list[float]
    std: list[float]
    shortest_edge: int | None
    longest_edge: int | None
    multiple: int
    interpolation: Interpolation


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a model wants its pictures.

    Attributes:
        mean: per channel, RGB, on the scale 0 to 255.
        std: per channel, RGB, on the scale 0 to 255.
        shortest_edge: the shorter side becomes this long; None keeps the size.
        longest_edge: the longer side becomes no longer than this; None sets no limit.
        multiple: the sides are padded to a multiple of this.
        interpolation: "pillow_bilinear" and "pillow_bicubic" smooth when they shrink and are what the
            official heads were evaluated with; "cv2_linear" is several times faster, needs no Pillow, and
            is not the same picture.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    shortest_edge: int | None = None
    longest_edge: int | None = None
    multiple: int = 32
    interpolation: Interpolation = "pillow_bilinear"

    def __post_init__(self) -> None:
        statistics: dict[str, tuple[float, ...]] = {"mean": self.mean, "std": self.std}
        for name, values in statistics.items():
            if len(values) != 3 or not all(math.isfinite(v) for v in values):
                raise InvalidParameter(
                    f"The {name} needs a number for each of R, G, B", field=name, got=values
                )
        if min(self.std) <= 0:
            raise InvalidParameter("The std must be above zero in each channel", field="std", got=self.std)
        for name, value in (
            ("shortest_edge", self.shortest_edge),
            ("longest_edge", self.longest_edge),
            ("multiple", self.multiple),
        ):
            if value is not None and value < 1:
                raise InvalidParameter(f"{name} must be at least 1 pixel", field=name, got=value)
        if self.interpolation not in get_args(Interpolation):
            raise InvalidParameter(
                "The interpolation is not known",
                field="interpolation",
                expected=", ".join(get_args(Interpolation)),
                got=self.interpolation,
            )

    def geometry(self, size: tuple[int, int]) -> Geometry:
        """Where a picture of this (height, width) will lie in the network's input.

        The rule is detectron2's `ResizeShortestEdge.get_output_shape`, with one deviation: a side never
        vanishes, however slender the picture.

        Raises:
            InvalidImage: a side is below 1, or the result would be immense.
        """
        height, width = size
        if min(size) < 1:
            raise InvalidImage("The image has no pixels", expected="at least 1 x 1 (height, width)", got=size)
        new_height, new_width = float(height), float(width)
        if self.shortest_edge is not None:
            scale = self.shortest_edge * 1.0 / min(height, width)
            if height < width:
                new_height, new_width = float(self.shortest_edge), scale * width
            else:
                new_height, new_width = scale * height, float(self.shortest_edge)
        if self.longest_edge is not None and max(new_height, new_width) > self.longest_edge:
            scale = self.longest_edge * 1.0 / max(new_height, new_width)
            new_height, new_width = new_height * scale, new_width * scale
        resized = (max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5)))
        if resized[0] * resized[1] > max(MAX_PIXELS, height * width):
            raise InvalidImage(
                "The image is too slender to be resized",
                expected=f"a shorter side that can become {self.shortest_edge} pixels long",
                got=f"{height} x {width} (height, width), which would become {resized[0]} x {resized[1]}",
            )
        padded = (_round_up(resized[0], self.multiple), _round_up(resized[1], self.multiple))
        return Geometry(original=(height, width), resized=resized, padded=padded)

    def apply(
        self, image: NDArray[np.uint8], presented: tuple[int, int] | None = None
    ) -> tuple[Tensor, Geometry]:
        """Resize, normalise and pad one picture.

        Args:
            image: (H, W, 3) uint8 RGB, as `ovperception.images.load_image` gives it.
            presented: (height, width) of the whole picture, if `image` is it at a smaller scale.

        Returns:
            The network's input, (3, Hp, Wp) float32 on the CPU, contiguous, and how the picture lies in it.

        Raises:
            InvalidImage: an array of another shape or type.
            MissingDependency: a Pillow interpolation is asked for and Pillow is not installed.
        """
        import torch

        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InvalidImage(
                "The array is not a picture",
                expected="(H, W, 3) uint8",
                got=f"{image.shape} {image.dtype}",
                mend="Read it with load_image",
            )
        geometry = self.geometry(presented or (image.shape[0], image.shape[1]))
        height, width = geometry.resized
        resized = image if geometry.resized == image.shape[:2] else self._resize(image, height, width)
        network = np.zeros((3, *geometry.padded), dtype=np.float32)
        tables = _tables(self.mean, self.std)
        for channel, plane in enumerate(cv2.split(resized)):
            cv2.LUT(plane, tables[channel], dst=network[channel, :height, :width])
        return torch.from_numpy(network), geometry

    def to_dict(self) -> PreprocessingDict:
        """For a bundle's model card; `from_dict` gives it back."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "shortest_edge": self.shortest_edge,
            "longest_edge": self.longest_edge,
            "multiple": self.multiple,
            "interpolation": self.interpolation,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            InvalidParameter: a field is missing, unknown or out of its range.
        """
        known = PreprocessingDict.__annotations__.keys()
        if unknown := values.keys() - known:
            raise InvalidParameter(
                "Unknown preprocessing fields", expected=", ".join(known), got=", ".join(sorted(unknown))
            )
        try:
            parts: dict[str, Any] = dict(values)
            parts["mean"] = tuple(float(v) for v in parts["mean"])
            parts["std"] = tuple(float(v) for v in parts["std"])
            return cls(**parts)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InvalidParameter):
                raise
            raise InvalidParameter("The preprocessing is not described whole", got=error) from error

    def _resize(self, image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
        if self.interpolation == "cv2_linear":
            resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            return cast("NDArray[np.uint8]", resized)
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingDependency(
                "Resizing as the reference does needs Pillow", mend="pip install 'ovperception[server]'"
            ) from error
        bilinear = self.interpolation == "pillow_bilinear"
        filter_ = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
        return np.asarray(Image.fromarray(image).resize((width, height), filter_))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@lru_cache(maxsize=16)
def _tables(mean: tuple[float, float, float], std: tuple[float, float, float]) -> list[NDArray[np.float32]]:
    """What each of the 256 values of each channel normalises to, by the reference's own operations.

    Three look-ups are several times faster than subtracting and dividing millions of numbers, and bit-equal:
    the same float32 operations, done once for each value instead of once for each pixel.
    """
    levels = np.arange(256, dtype=np.float32)
    return [(levels - np.float32(m)) / np.float32(s) for m, s in zip(mean, std, strict=True)]
