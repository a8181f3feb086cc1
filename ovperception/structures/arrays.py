"""What the arrays of answers must be, and the few forms they are written in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidImage, InvalidParameter, InvalidRegions

if TYPE_CHECKING:
    from ovperception.images import ImageSource

__all__ = ["as_array", "canvas", "category_numbers", "plane_shape", "shortest"]


def as_array(values: Any, dtype: type[np.generic], shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """Values as an array of this type and shape, where nothing is lost but precision.

    Raises:
        InvalidRegions: They are of another shape or kind.
    """
    if isinstance(values, np.ndarray) and values.dtype == dtype and values.shape == shape:
        return values
    array = np.asarray(values)
    if array.size == 0 and 0 in shape:  # an empty list knows neither type nor shape
        return np.zeros(shape, dtype=dtype)
    if array.shape != shape or not np.can_cast(array.dtype, dtype, casting="same_kind"):
        raise InvalidRegions(
            f"{name} have a wrong shape or type",
            field=name,
            expected=f"{shape} {np.dtype(dtype)}",
            got=f"{array.shape} {array.dtype}",
        )
    return array.astype(dtype, copy=False)


def plane_shape(plane: NDArray[Any], name: str) -> tuple[int, int]:
    """(H, W) of a map.

    Raises:
        InvalidRegions: It is none, or empty.
    """
    shape = np.shape(plane)
    if len(shape) != 2 or 0 in shape:
        raise InvalidRegions(f"{name} must be a map", field=name, expected="(H, W)", got=shape)
    return shape[0], shape[1]


def category_numbers(category_ids: Sequence[int] | None, count: int) -> list[int]:
    """An annotation file's number of each of `count` classes; their indices by default.

    Raises:
        InvalidParameter: There is not one for each.
    """
    if category_ids is None:
        return list(range(count))
    if isinstance(category_ids, Mapping) or len(category_ids) != count:
        raise InvalidParameter(
            "There must be one category id for each class", expected=f"{count} numbers", got=category_ids
        )
    return [int(category) for category in category_ids]


def shortest(value: float | np.floating) -> float:
    """The shortest decimal that is the same float32."""
    return float(str(np.float32(value)))


def canvas(image: ImageSource, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image of (height, width) `size` that an answer is drawn on, (H, W, 3) uint8 RGB.

    Raises:
        InvalidImage: Not an image, or of another size.
    """
    from ovperception.images import load_image

    pixels = load_image(image)
    if pixels.shape[:2] != size:
        raise InvalidImage(
            "The image is not the one that was asked about",
            expected=f"(height, width) = {size}",
            got=pixels.shape[:2],
        )
    return pixels
