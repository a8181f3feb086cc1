"""How a picture goes over the wire."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.client.shared_memory import SharedPicture
from ovperception.errors import InvalidParameter
from ovperception.images import MAX_BYTES, encode_png, load_image, read_file
from ovperception.v1 import image_pb2

if TYPE_CHECKING:
    from ovperception.images import ImageSource

    Source = ImageSource | SharedPicture

__all__ = ["TRANSPORTS", "Pictures", "Transport", "picture_message"]

Transport = Literal["auto", "raw", "png", "jpeg"]
TRANSPORTS: tuple[Transport, ...] = ("auto", "raw", "png", "jpeg")
# Below this size compressing costs more than it saves on any network.
_ALWAYS_RAW = 2**18
_JPEG_QUALITY = 95


class Pictures:
    """How one client sends pictures.

    Args:
        transport: How pixels go.
        local: Whether the server is on this machine.
        max_bytes: What fits into a message.

    Raises:
        InvalidParameter: There is no such transport.
    """

    def __init__(self, transport: Transport, *, local: bool, max_bytes: int) -> None:
        if transport not in TRANSPORTS:
            raise InvalidParameter(
                "No such transport", field="transport", expected=" or ".join(TRANSPORTS), got=transport
            )
        self._transport: Transport = transport
        self._local = local
        self._max_bytes = max_bytes

    def message(self, source: Source) -> image_pb2.Image:
        """A picture as it is sent.

        Raises:
            InvalidImage, MissingFile: It is no picture, or there is no such file.
        """
        return picture_message(source, self._transport, local=self._local, max_bytes=self._max_bytes)


def picture_message(source: Source, transport: Transport, *, local: bool, max_bytes: int) -> image_pb2.Image:
    """A picture as a message.

    Files and encoded bytes go as they are. Pixels go raw to a server on this machine and as PNG to others, so
    that a served answer is the local one to the last bit; ``jpeg`` is smaller, and changes the picture.

    Args:
        source: Whatever `load_image` takes, or a picture in shared memory.
        transport: How pixels go.
        local: Whether the server is on this machine.
        max_bytes: What fits into a message; beyond it ``auto`` does not send raw.
    """
    if isinstance(source, SharedPicture):
        return source.message
    if isinstance(source, (bytes, bytearray, memoryview)):
        return image_pb2.Image(encoded=bytes(source))
    if isinstance(source, (str, Path)):
        return image_pb2.Image(encoded=read_file(Path(source), MAX_BYTES))
    pixels = load_image(source)
    if transport == "auto":
        raw = pixels.nbytes <= _ALWAYS_RAW or (local and pixels.nbytes + 2**16 <= max_bytes)
        transport = "raw" if raw else "png"
    if transport == "png":
        return image_pb2.Image(encoded=encode_png(pixels))
    if transport == "jpeg":
        return image_pb2.Image(encoded=_jpeg(pixels))
    height, width = pixels.shape[:2]
    return image_pb2.Image(
        raw=image_pb2.RawImage(
            data=pixels.tobytes(), width=width, height=height, format=image_pb2.PIXEL_FORMAT_RGB8
        )
    )


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise InvalidParameter("OpenCV cannot write this picture as JPEG", field="image", got=pixels.shape)
    return data.tobytes()
