"""Label maps and panoptic maps as others wrote them into pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ovperception.errors import InvalidDataset, MissingFile

__all__ = ["LabelCoding", "read_label_map", "read_panoptic_map"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCoding:
    """How the values of a picture stand for classes.

    Attributes:
        offset: added to a value: -1 where classes start at 1, as in ADE20K.
        special: values, before the offset, of pixels without a class: 255, or ADE20K's 0.
        lookup: value -> class, or -1 for none, where no offset can say it (Cityscapes' label ids); every
            value that occurs has to be listed.
    """

    offset: int = 0
    special: frozenset[int] = frozenset({255})
    lookup: Mapping[int, int] = field(default_factory=dict)

    def decode(self, values: NDArray[np.integer]) -> NDArray[np.int32]:
        """(H, W) class per pixel, -1 for none.

        Raises:
            InvalidDataset: a value is not listed, where there is a list.
        """
        if not self.lookup:
            shifted = values.astype(np.int32) + self.offset
            for value in self.special:
                shifted[values == value] = -1
            return shifted
        table = np.full(max(*self.lookup, *self.special, int(values.max(initial=0)), 0) + 1, -2, np.int32)
        for value, label in self.lookup.items():
            table[value] = label
        table[list(self.special)] = -1
        classes: NDArray[np.int32] = table[values]
        if (classes == -2).any():
            strange = np.unique(values[classes == -2])[:9].tolist()
            raise InvalidDataset(
                "Values of a label map are no classes",
                expected=f"{min(self.lookup)} to {max(self.lookup)}, or of no class {sorted(self.special)}",
                got=strange,
                mend="Maps hold the numbers of the data set's files, not the index of the class.",
            )
        return classes


def read_label_map(path: Path) -> NDArray[np.integer]:
    """(H, W) uint8, uint16 or int32 value per pixel of a grey or indexed picture, PNG or TIFF.

    Raises:
        MissingFile: there is none.
        InvalidDataset: it cannot be decoded, or is a picture in colours.
    """
    if not path.is_file():
        raise MissingFile("This label map does not exist", got=path)
    try:
        with Image.open(path) as picture:  # OpenCV would turn an index into the colour that it stands for
            mode, values = picture.mode, np.asarray(picture)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InvalidDataset(f"{path.name} cannot be decoded", got=error, mend="Write it again.") from error
    if values.ndim != 2 or mode == "F":
        raise InvalidDataset(
            f"{path.name} is no label map", expected="one value a pixel, grey or indexed", got=f"mode {mode}"
        )
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def read_panoptic_map(path: Path) -> NDArray[np.uint32]:
    """(H, W) segment id per pixel of COCO's coding, R + 256 G + 65536 B.

    Raises:
        MissingFile: there is none.
        InvalidDataset: it cannot be decoded, or has no three channels of a byte.
    """
    if not path.is_file():
        raise MissingFile("This panoptic map does not exist", got=path)
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise InvalidDataset(f"{path.name} cannot be decoded", mend="Write it again.")
    if picture.ndim != 3 or picture.dtype != np.uint8:
        raise InvalidDataset(
            f"{path.name} is no panoptic map",
            expected="three channels of a byte: id = R + 256 G + 65536 B",
            got=f"{picture.dtype} {picture.shape}",
        )
    code = cv2.COLOR_BGR2RGBA if picture.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    pixels = np.asarray(cv2.cvtColor(picture, code), np.uint8).view(np.uint32)[..., 0]
    # The fourth byte is opacity. The order of bytes is that of every machine there are wheels for.
    return pixels & np.uint32(0xFFFFFF)
