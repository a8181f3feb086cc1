"""COCO run-length encoding without pycocotools, so that a client needs numpy alone.

The runs of a mask go down its columns, zeros first. COCO writes every run after the third as the difference
to the run two before, and each number as little-endian groups of five bits, one printable character a group
(pycocotools `common/maskApi.c`, `rleToString` and `rleFrString`). The strings here are identical to theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from typing import Any, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidRegions

__all__ = ["RLE", "CocoRLE"]

# Runs are int32 in COCO's own tools; a size beyond this cannot come from a picture.
MAX_PIXELS = 2**31 - 1
# 35 bits: more than any run up to MAX_PIXELS needs, and far from overflowing the int64 sums below.
_MAX_CHARACTERS = 7


class CocoRLE(TypedDict):
    """A mask as COCO's JSON files spell it: (height, width) and the compressed run lengths."""

    size: list[int]
    counts: str


@dataclass(frozen=True, slots=True)
class RLE:
    """One mask as COCO compressed RLE.

    Construction checks the size only; whether `counts` describes a mask of that size shows when it is
    decoded, measured, or read with `from_coco`, which raise `InvalidRegions` if it does not.

    Attributes:
        size: (height, width) of the whole image.
        counts: run lengths in column-major order, in COCO's compressed string form.
    """

    size: tuple[int, int]
    counts: bytes

    def __post_init__(self) -> None:
        height, width = self.size
        if height < 1 or width < 1 or height * width > MAX_PIXELS:
            raise InvalidRegions(
                "A mask has an impossible size",
                expected=f"height and width of at least 1 and at most {MAX_PIXELS} pixels in all",
                got=self.size,
            )

    @classmethod
    def encode(cls, mask: NDArray[np.bool_] | NDArray[np.uint8]) -> Self:
        """Encode a whole mask.

        Args:
            mask: (H, W) bool or uint8; everything that is not zero belongs to the mask.

        Raises:
            InvalidRegions: the mask has another shape, another type or no pixels.
        """
        shape = np.shape(mask)
        if len(shape) != 2:
            raise InvalidRegions("A mask must have two dimensions", expected="(H, W)", got=shape)
        return cls.from_crop(mask, 0, 0, (shape[0], shape[1]))

    @classmethod
    def from_crop(
        cls, crop: NDArray[np.bool_] | NDArray[np.uint8], top: int, left: int, size: tuple[int, int]
    ) -> Self:
        """Encode a mask that is zero outside a crop; the cost is that of the crop, not of the image.

        Args:
            crop: (h, w) bool or uint8; may be empty.
            top: row of the image that the crop's first row lies on.
            left: column of the image that the crop's first column lies on.
            size: (H, W) of the image.

        Raises:
            InvalidRegions: the crop has another shape or type, or reaches beyond the image.
        """
        if np.ndim(crop) != 2 or crop.dtype not in (np.bool_, np.uint8):
            raise InvalidRegions(
                "A mask has a wrong shape or type",
                expected="(h, w) bool or uint8",
                got=f"{crop.shape} {crop.dtype}",
            )
        height, width = int(size[0]), int(size[1])
        h, w = crop.shape
        if min(top, left) < 0 or top + h > height or left + w > width:
            raise InvalidRegions(
                "A mask crop reaches beyond its image",
                expected=f"a crop within (height, width) = ({height}, {width})",
                got=f"{h} rows from {top}, {w} columns from {left}",
            )
        edges = _edges(crop, int(top), int(left), height)
        runs = np.diff(edges, prepend=0, append=height * width)
        if runs[-1] == 0:  # the mask reaches the last pixel: COCO writes no empty last run
            runs = runs[:-1]
        return cls((height, width), _to_string(runs))

    @classmethod
    def from_coco(cls, rle: Mapping[str, Any]) -> Self:
        """Read COCO's JSON form, compressed (``counts`` text or bytes) or not (a list of run lengths).

        Raises:
            InvalidRegions: a field is missing or mistyped, or the runs do not fill the size.
        """
        try:
            size, counts = rle["size"], rle["counts"]
            height, width = (index(side) for side in size)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRegions(
                "A mask is not COCO run-length encoding",
                expected='{"size": [height, width], "counts": text or list}',
                got=rle,
            ) from error
        if isinstance(counts, str):
            counts = counts.encode("ascii", errors="replace")
        if isinstance(counts, bytes):
            mask = cls((height, width), counts)
            mask._runs()
            return mask
        try:
            runs = np.asarray(counts, dtype=np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidRegions("Run lengths are not whole numbers", got=counts) from error
        if runs.ndim != 1:
            raise InvalidRegions("Run lengths are not one flat list", got=f"shape {runs.shape}")
        mask = cls((height, width), b"")
        _check_runs(runs, mask.size)
        return cls(mask.size, _to_string(runs))

    def to_coco(self) -> CocoRLE:
        """COCO's JSON form."""
        return {"size": [self.size[0], self.size[1]], "counts": self.counts.decode("ascii")}

    def decode(self) -> NDArray[np.uint8]:
        """The whole mask, (H, W) uint8, 0 or 1.

        Raises:
            InvalidRegions: `counts` does not describe a mask of `size`.
        """
        crop, top, left = self.decode_crop()
        mask = np.zeros(self.size, dtype=np.uint8)
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        return mask

    def decode_crop(self) -> tuple[NDArray[np.uint8], int, int]:
        """The mask within its `box`: ((h, w) uint8, top, left); no pixels for an empty mask.

        Raises:
            InvalidRegions: `counts` does not describe a mask of `size`.
        """
        runs = self._runs()
        x0, y0, x1, y1 = self._extent(runs)
        height = self.size[0]
        if x0 == x1:
            return np.zeros((0, 0), dtype=np.uint8), 0, 0
        # Only the columns the mask lies in are written out.
        edges = np.clip(np.cumsum(runs), x0 * height, x1 * height)
        values = np.arange(len(runs)).astype(np.uint8) & 1
        columns = np.repeat(values, np.diff(edges, prepend=x0 * height)).reshape(x1 - x0, height)  # (w, H)
        return np.ascontiguousarray(columns[:, y0:y1].T), y0, x0

    @property
    def area(self) -> int:
        """Number of pixels in the mask."""
        return int(self._runs()[1::2].sum())

    @property
    def box(self) -> NDArray[np.float32]:
        """The tightest box around the mask, (4,) float32 xyxy half-open; zeros for an empty mask."""
        return np.asarray(self._extent(self._runs()), dtype=np.float32)

    def _runs(self) -> NDArray[np.int64]:
        runs = _from_string(self.counts)
        _check_runs(runs, self.size)
        return runs

    def _extent(self, runs: NDArray[np.int64]) -> tuple[int, int, int, int]:
        height = self.size[0]
        ends = np.cumsum(runs)[1::2]
        lengths = runs[1::2]
        ends, lengths = ends[lengths > 0], lengths[lengths > 0]
        if not len(ends):
            return 0, 0, 0, 0
        first_column, first_row = np.divmod(ends - lengths, height)
        last_column, last_row = np.divmod(ends - 1, height)
        x0, x1 = int(first_column[0]), int(last_column[-1]) + 1
        if np.any(first_column != last_column):  # a run that turns a corner touches bottom and top
            return x0, 0, x1, height
        return x0, int(first_row.min()), x1, int(last_row.max()) + 1


def _edges(crop: NDArray[Any], top: int, left: int, height: int) -> NDArray[np.int64]:
    """Ascending column-major positions in the image where the mask starts, ends, starts, ..."""
    h, w = crop.shape
    if h == 0 or w == 0:
        return np.zeros(0, dtype=np.int64)
    inside = crop if crop.dtype == np.bool_ else crop != 0
    change = np.empty((h + 1, w), dtype=np.bool_)
    change[0] = inside[0]
    change[h] = inside[h - 1]
    np.not_equal(inside[1:], inside[:-1], out=change[1:h])
    # The changes are few: sorting them is cheaper than turning the mask on its side.
    rows, columns = np.divmod(np.flatnonzero(change), w)
    edges = np.sort((columns + left) * height + (rows + top))
    if h == height:
        # A run that leaves a column at the bottom and enters the next at the top is one run.
        same = edges[1:] == edges[:-1]
        keep = np.ones(len(edges), dtype=np.bool_)
        keep[1:] &= ~same
        keep[:-1] &= ~same
        edges = edges[keep]
    return edges.astype(np.int64, copy=False)


def _check_runs(runs: NDArray[np.int64], size: tuple[int, int]) -> None:
    pixels = size[0] * size[1]
    # Each run is bounded before they are added, so that the sum cannot wrap around to the right number.
    if len(runs) and (runs.min() < 0 or runs.max() > pixels):
        raise InvalidRegions("A mask has a run that is negative or longer than the image", got=size)
    total = int(runs.sum())
    if total != pixels:
        raise InvalidRegions(
            "The runs of a mask do not fill its image",
            expected=f"{pixels} pixels for (height, width) = {size}",
            got=total,
        )


def _to_string(runs: NDArray[np.int64]) -> bytes:
    numbers = runs.astype(np.int64)
    numbers[3:] -= runs[1:-2]
    # How many groups of five bits hold the number with its sign.
    magnitude = np.where(numbers < 0, ~numbers, numbers)
    lengths = np.ones(len(numbers), dtype=np.int64)
    for k in range(1, _MAX_CHARACTERS):
        lengths += magnitude >= 1 << (5 * k - 1)
    starts = np.cumsum(lengths) - lengths
    text = np.empty(int(lengths.sum()), dtype=np.uint8)
    for k in range(int(lengths.max(initial=0))):
        has = lengths > k
        more = (lengths[has] > k + 1) * 32
        text[starts[has] + k] = ((numbers[has] >> (5 * k)) & 31) + more + 48
    return text.tobytes()


def _from_string(text: bytes) -> NDArray[np.int64]:
    groups = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not len(groups):
        return groups
    last = (groups & 32) == 0
    if groups.min() < 0 or groups.max() > 63 or not last[-1]:
        raise InvalidRegions("A mask's run lengths are not a COCO string", got=text[:64])
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise InvalidRegions("A mask has a run longer than any image", got=text[:64])
    shifts = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((groups & 31) << shifts, starts)
    numbers -= ((groups[ends] & 16) != 0).astype(np.int64) << (5 * lengths)  # the top bit is the sign
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
