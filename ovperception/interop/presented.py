"""A picture that a framework resized already, answered in pixels of the picture it was before."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidImage, InvalidParameter

if TYPE_CHECKING:
    from ovperception.model import Model
    from ovperception.scene import Scene

__all__ = ["ChannelOrder", "channel_order", "look_at", "picture"]

ChannelOrder = Literal["BGR", "RGB"]


def channel_order(name: str) -> ChannelOrder:
    """Checks the order of the channels.

    Raises:
        InvalidParameter: it is neither BGR nor RGB.
    """
    if name not in ("BGR", "RGB"):
        raise InvalidParameter(
            "This order of channels is not known", field="input_format", expected="BGR or RGB", got=name
        )
    return "BGR" if name == "BGR" else "RGB"


def picture(image: Any, order: ChannelOrder) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a framework's tensor.

    Args:
        image: (3, H, W) tensor or array, 0 to 255, of bytes or of floats.
        order: of its channels.

    Raises:
        InvalidImage: another shape, or numbers that are no colours, such as normalised ones.
    """
    array = np.asarray(image.cpu() if hasattr(image, "cpu") else image)
    if array.ndim != 3 or array.shape[0] != 3 or 0 in array.shape:
        raise InvalidImage("This is no picture", expected="(3, H, W), 0 to 255", got=array.shape)
    if array.dtype != np.uint8:
        if array.min() < 0 or array.max() > 255 or 0 < array.max() <= 1:
            raise InvalidImage(
                "These numbers are no colours",
                expected="0 to 255",
                got=f"{array.min():g} to {array.max():g}",
                mend="Give the picture as it was read: normalisation is the model's own",
            )
        array = np.round(array).astype(np.uint8)
    pixels = array.transpose(1, 2, 0)
    return np.ascontiguousarray(pixels[..., ::-1] if order == "BGR" else pixels)


def look_at(model: Model, pixels: NDArray[np.uint8], size: tuple[int, int]) -> Scene:
    """The scene of a picture, whose answers are of another size.

    Args:
        model: that looks.
        pixels: (H, W, 3) uint8 RGB.
        size: (height, width) that answers are to have, such as before the framework resized it.
    """
    prepared = model.prepare(pixels)
    geometry = dataclasses.replace(prepared.geometry, original=size)
    return model.scenes(model.look([dataclasses.replace(prepared, geometry=geometry)]))[0]
