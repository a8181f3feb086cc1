"""The pictures of requests: what they say about themselves first, their pixels later and elsewhere.

The size of a picture is known from its header, or from what a raw image says, before anything is decoded:
that is when it is admitted or refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidImage
from ovperception.images import MAX_SIDE, load_reduced, read_header
from ovperception.v1 import image_pb2

__all__ = ["IMAGE_FORMATS", "PIXEL_FORMATS", "Picture", "open_picture"]

IMAGE_FORMATS = ("jpeg", "png", "webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture that is not decoded yet.

    Attributes:
        size: (height, width) as presented.
        decode: Gives (H, W, 3) RGB of that size, or a part of it that is no smaller than the size it is
            called with (`ovperception.images.load_reduced`); on any thread, and raises `InvalidImage`.
    """

    size: tuple[int, int]
    decode: Callable[[tuple[int, int]], NDArray[np.uint8]]

    @property
    def pixels(self) -> int:
        """How many it has."""
        return math.prod(self.size)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Rows of a raw image: how many, how wide, and OpenCV's code to RGB (None: they are RGB)."""

    bytes_per_pixel: int
    to_rgb: int | None
    channels: int
    even_width: bool = False
    even_height: bool = False


_LAYOUTS: dict[int, _Layout] = {
    image_pb2.PIXEL_FORMAT_RGB8: _Layout(3, None, 3),
    image_pb2.PIXEL_FORMAT_BGR8: _Layout(3, cv2.COLOR_BGR2RGB, 3),
    image_pb2.PIXEL_FORMAT_RGBA8: _Layout(4, cv2.COLOR_RGBA2RGB, 4),
    image_pb2.PIXEL_FORMAT_BGRA8: _Layout(4, cv2.COLOR_BGRA2RGB, 4),
    image_pb2.PIXEL_FORMAT_MONO8: _Layout(1, cv2.COLOR_GRAY2RGB, 1),
    image_pb2.PIXEL_FORMAT_NV12: _Layout(1, cv2.COLOR_YUV2RGB_NV12, 1, even_width=True, even_height=True),
    image_pb2.PIXEL_FORMAT_YUYV: _Layout(2, cv2.COLOR_YUV2RGB_YUY2, 2, even_width=True),
}
PIXEL_FORMATS = tuple(map(image_pb2.PixelFormat.Name, _LAYOUTS))


def open_picture(image: image_pb2.Image, max_pixels: int) -> Picture:
    """The picture of a request, by its header.

    Raises:
        InvalidImage: There is none, it is too large, or it is not what it says it is.
    """
    source = image.WhichOneof("source")
    if source == "raw":
        return _raw(image.raw, max_pixels)
    if source == "encoded":
        return _encoded(image.encoded, image.exif_orientation, max_pixels)
    raise InvalidImage(
        "The request has no picture",
        field="image",
        expected="encoded bytes or a raw image" + (", not a handle" if source else ", or a handle"),
    )


def _encoded(data: bytes, policy: int, max_pixels: int) -> Picture:
    try:
        header = read_header(data, max_pixels=max_pixels)
    except InvalidImage as error:
        error.field = "image.encoded"
        raise
    stored = policy == image_pb2.EXIF_POLICY_IGNORE

    def decode(least: tuple[int, int]) -> NDArray[np.uint8]:
        upright = least[::-1] if stored and header.orientation >= 5 else least
        try:
            picture, _ = load_reduced(data, lambda _: upright, max_pixels=max_pixels)
        except InvalidImage as error:
            error.field = "image.encoded"
            raise
        return np.ascontiguousarray(_as_stored(picture, header.orientation)) if stored else picture

    return Picture(size=header.stored if stored else header.size, decode=decode)


def _as_stored(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo what an EXIF orientation made of a picture."""
    match orientation:
        case 2:
            return upright[:, ::-1]
        case 3:
            return upright[::-1, ::-1]
        case 4:
            return upright[::-1]
        case 5:
            return upright.transpose(1, 0, 2)
        case 6:
            return np.rot90(upright, 1)
        case 7:
            return upright[::-1, ::-1].transpose(1, 0, 2)
        case 8:
            return np.rot90(upright, -1)
    return upright


def _raw(raw: image_pb2.RawImage, max_pixels: int) -> Picture:
    layout = _LAYOUTS.get(raw.format)
    if layout is None:
        raise InvalidImage(
            "The raw image has no pixel format",
            field="image.raw.format",
            expected=" or ".join(PIXEL_FORMATS),
            got=raw.format,
        )
    _check_raw_size(raw, layout, max_pixels)
    width, height = raw.width, raw.height
    rows = height * 3 // 2 if raw.format == image_pb2.PIXEL_FORMAT_NV12 else height
    row = width * layout.bytes_per_pixel
    stride = raw.row_stride or row
    data = raw.data  # each access copies
    # The last row may come without its padding.
    if stride < row or not stride * (rows - 1) + row <= len(data) <= stride * rows:
        raise InvalidImage(
            "The raw image's size, stride and data contradict each other",
            field="image.raw.row_stride" if stride < row else "image.raw.data",
            expected=f"a row_stride of at least {row}, and {rows} rows of it",
            got=f"row_stride {stride}, {len(data)} bytes",
        )

    def decode(least: tuple[int, int]) -> NDArray[np.uint8]:
        lines = np.ndarray((rows, row), np.uint8, data, strides=(stride, 1))
        # A copy, not a view of the message: torch does not take arrays it may not write to.
        picture = lines.copy().reshape(rows, row // layout.channels, layout.channels)
        return (
            picture if layout.to_rgb is None else np.asarray(cv2.cvtColor(picture, layout.to_rgb), np.uint8)
        )

    return Picture(size=(height, width), decode=decode)


def _check_raw_size(raw: image_pb2.RawImage, layout: _Layout, max_pixels: int) -> None:
    size = f"{raw.width} x {raw.height} (width, height)"
    if not 0 < raw.width * raw.height <= max_pixels or max(raw.width, raw.height) > MAX_SIDE:
        raise InvalidImage(
            "The raw image is empty or too large",
            field="image.raw.width",
            expected=f"1 to {max_pixels} pixels, {MAX_SIDE} a side at most",
            got=size,
        )
    if (layout.even_width and raw.width % 2) or (layout.even_height and raw.height % 2):
        raise InvalidImage(
            "This pixel format shares colours between neighbours",
            field="image.raw.width" if raw.width % 2 else "image.raw.height",
            expected="an even size",
            got=size,
        )
