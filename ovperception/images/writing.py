"""Pictures out: encoded, and written whole or not at all."""

from __future__ import annotations

import errno
import secrets
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidImage, InvalidInput, MissingFile, OVPError, ResourceExhausted

__all__ = ["encode_png", "save_image", "write_file"]


def encode_png(image: NDArray[Any]) -> bytes:
    """PNG bytes of an (H, W, 3) uint8 RGB picture, or of an (H, W) uint8 or uint16 map."""
    return _encode(image, ".png")


def save_image(path: str | Path, image: NDArray[Any]) -> None:
    """Write a picture whole or not at all; the suffix of the path chooses PNG, JPEG or WebP.

    Args:
        path: ends in .png, .jpg, .jpeg or .webp.
        image: (H, W, 3) uint8 RGB; PNG also takes (H, W) uint8 or uint16.

    Raises:
        InvalidInput: another suffix, or a place that may not be written.
        MissingFile: the folder does not exist.
        ResourceExhausted: the disk is full.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg", ".webp"):
        raise InvalidInput(
            "The name of a picture must tell its format", expected=".png, .jpg, .jpeg or .webp", got=path
        )
    write_file(path, _encode(image, suffix))


def write_file(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all: readers see the old content or the new, never a part.

    Raises:
        MissingFile: the folder does not exist.
        InvalidInput: the place may not be written.
        ResourceExhausted: the disk is full.
    """
    path = Path(path)
    part = path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}.part")
    try:
        try:
            with part.open("xb") as file:
                file.write(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise _write_error(path, error) from error


def _write_error(path: Path, error: OSError | ValueError) -> OVPError:
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted("The disk is full", got=path, mend="Make room and ask again")
    if number in (errno.ENOENT, errno.ENOTDIR):
        return MissingFile("The folder to write into does not exist", got=path.parent, mend="Create it first")
    return InvalidInput("The file cannot be written", got=f"{path}: {error}")


def _encode(image: NDArray[Any], suffix: str) -> bytes:
    image = np.asarray(image)
    picture = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    plane = image.ndim == 2 and image.dtype in (np.uint8, np.uint16) and suffix == ".png"
    if not (picture or plane) or image.size == 0:
        raise InvalidImage(
            f"This array cannot be written as {suffix[1:].upper()}",
            expected="(H, W, 3) uint8 RGB, or for PNG (H, W) uint8 or uint16",
            got=f"{image.shape} {image.dtype}",
        )
    options = {".webp": [cv2.IMWRITE_WEBP_QUALITY, 90], ".png": []}.get(
        suffix, [cv2.IMWRITE_JPEG_QUALITY, 92]
    )
    try:
        done, data = cv2.imencode(suffix, image[..., ::-1] if picture else image, options)
    except cv2.error as error:
        raise InvalidImage(f"OpenCV cannot write this as {suffix[1:].upper()}", got=error.err) from error
    if not done:
        raise InvalidImage(f"OpenCV cannot write this as {suffix[1:].upper()}", got=image.shape)
    return data.tobytes()
