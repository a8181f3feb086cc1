"""Label maps as data sets store them: grey, palette and 16-bit PNG, 16- and 32-bit TIFF, MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.folders import require_file
from ovperception.dependencies import missing
from ovperception.errors import InvalidDataset
from ovperception.image_headers import MAX_PIXELS, check_size

__all__ = ["read_id_map", "read_labels"]

_PALETTE = 3


def read_labels(path: Path) -> NDArray[Any]:
    """The values of a label file, (H, W), in its own integer type; a palette's indices, not its colours.

    Args:
        path: a PNG or TIFF, or a ``.mat`` with a ``LabelMap`` (PASCAL Context).

    Raises:
        MissingFile: it is not there.
        InvalidDataset: it is broken or has colours.
    """
    data = require_file(path).read_bytes()
    if path.suffix.lower() == ".mat":
        return _matlab(path)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[25:26] == bytes((_PALETTE,)):
        return _palette_indices(path)
    labels = _decoded(data, path)
    if labels.ndim == 3 and (labels == labels[..., :1]).all():
        labels = labels[..., 0]
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise InvalidDataset(
            f"{path} is no label map",
            field="labels",
            expected="one whole number a pixel: grey or palette",
            got=f"{labels.shape} {labels.dtype}",
            mend="Pictures of colours must be turned into class numbers first",
        )
    return labels


def read_id_map(path: Path) -> NDArray[np.int32]:
    """The segment ids of a COCO panoptic PNG, (H, W) int32: R + 256 G + 65536 B.

    Raises:
        MissingFile: it is not there.
        InvalidDataset: it is broken or not RGB.
    """
    picture = _decoded(require_file(path).read_bytes(), path)
    if picture.ndim != 3 or picture.shape[2] < 3 or picture.dtype != np.uint8:
        raise InvalidDataset(
            f"{path} is no panoptic map",
            field="panoptic",
            expected="RGB, 8 bits each",
            got=f"{picture.shape} {picture.dtype}",
        )
    blue, green, red = (picture[..., channel].astype(np.int32) for channel in range(3))
    ids: NDArray[np.int32] = red + 256 * green + 65536 * blue
    return ids


def _decoded(data: bytes, path: Path) -> NDArray[Any]:
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 26:
        check_size((int.from_bytes(data[20:24]), int.from_bytes(data[16:20])), MAX_PIXELS)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InvalidDataset(f"{path} cannot be decoded", field="labels", got=error.err) from error
    if image is None:
        raise InvalidDataset(
            f"{path} is broken, or neither PNG nor TIFF", field="labels", got=f"{len(data)} bytes"
        )
    return image


def _palette_indices(path: Path) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise missing(error, "Reading palette PNGs") from error
    try:
        with Image.open(path) as image:
            return np.asarray(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidDataset(f"{path} is broken", field="labels", got=error) from error


def _matlab(path: Path) -> NDArray[Any]:
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ModuleNotFoundError as error:
        raise missing(error, "Reading MATLAB files") from error
    try:
        found = loadmat(str(path))["LabelMap"]
    except (KeyError, ValueError, MatReadError, NotImplementedError, OSError) as error:
        raise InvalidDataset(
            f"{path} has no LabelMap", field="labels", expected="a MATLAB file with LabelMap", got=error
        ) from error
    return np.asarray(found)
