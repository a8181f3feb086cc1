"""Pixels counted by true and predicted class, over any number of images and processes.

Label maps are piecewise constant: along a row the pair (truth, prediction) changes at few pixels. An image is
therefore reduced to runs of equal pairs first, and only the runs are checked and counted; the cost grows
with neither the number of classes nor, beyond one comparison, with that of pixels.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidParameter, InvalidRegions

__all__ = ["ConfusionMatrix", "pair_runs"]


def pair_runs(
    first: NDArray[np.integer], second: NDArray[np.integer]
) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.int64]]:
    """Runs of pixels with one pair of values, in reading order: first's values, second's values, lengths.

    Args:
        first: (H, W) or (N,).
        second: the same shape.
    """
    a, b = np.ravel(first), np.ravel(second)
    if not a.size:
        return a, b, np.zeros(0, np.int64)
    changes = np.flatnonzero(_differs(a, b))
    edges = np.empty(len(changes) + 2, np.int64)
    edges[0], edges[-1] = 0, a.size
    np.add(changes, 1, out=edges[1:-1])
    starts = edges[:-1]
    return a.take(starts), b.take(starts), edges[1:] - starts


def _differs(a: NDArray[np.integer], b: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(N - 1,) whether the pair after is another one."""
    if a.dtype == b.dtype == np.uint8:  # of bytes, xor takes half of a comparison
        found: NDArray[np.bool_] = np.logical_or(a[1:] ^ a[:-1], b[1:] ^ b[:-1])
        return found
    changes: NDArray[np.bool_] = a[1:] != a[:-1]
    changes |= b[1:] != b[:-1]
    return changes


class ConfusionMatrix:
    """Counts of pixels by true and predicted class.

    Args:
        count: K, the number of classes.

    Attributes:
        counts: (K, K + 1) int64, true class by predicted class; the last column is "undecided".
        images: how many were taken.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise InvalidParameter(
                "There is no class to count", field="count", expected="1 or more", got=count
            )
        self.counts = np.zeros((count, count + 1), np.int64)
        self.images = 0

    def add(
        self,
        truth: NDArray[np.integer],
        predicted: NDArray[np.integer],
        *,
        ignore_label: int = -1,
        undecided_label: int = -1,
    ) -> None:
        """Takes one image.

        Args:
            truth: (H, W) class per pixel.
            predicted: (H, W) class per pixel.
            ignore_label: in the truth, of pixels that are not judged, such as 255.
            undecided_label: in the prediction, of pixels that got no class: they count as missed, and to no
                class's union but that of their truth.

        Raises:
            InvalidRegions: the maps differ in size, or a label has no class. Predicted labels are looked at
                where the truth is judged only.
        """
        if truth.shape != predicted.shape:
            raise InvalidRegions(
                "The map is not of the size of its truth", expected=str(truth.shape), got=predicted.shape
            )
        rows, columns, pixels = pair_runs(truth, predicted)
        count = len(self.counts)
        judged = rows != ignore_label
        if not judged.all():
            rows, columns, pixels = rows[judged], columns[judged], pixels[judged]
        cells = _checked(rows, "truth", ignore_label, count)
        cells *= count + 1
        decided = columns != undecided_label
        if decided.all():
            cells += _checked(columns, "predicted", undecided_label, count)
        else:
            cells[decided] += _checked(columns[decided], "predicted", undecided_label, count)
            cells[~decided] += count
        # In place, as few of the many cells occur.
        np.add.at(self.counts.reshape(-1), cells, pixels)
        self.images += 1

    def merge(self, other: ConfusionMatrix) -> None:
        """Adds what another one counted, such as that of another process.

        Raises:
            InvalidParameter: it counted other classes.
        """
        if self.counts.shape != other.counts.shape:
            raise InvalidParameter(
                "Two counts are of different classes",
                expected=f"{len(self.counts)} classes",
                got=len(other.counts),
            )
        self.counts += other.counts
        self.images += other.images

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        total = ConfusionMatrix(len(self.counts))
        total.merge(self)
        total.merge(other)
        return total

    def to_arrays(self) -> dict[str, NDArray[np.int64]]:
        """What `from_arrays` makes an equal one of; can be sent, or written with `numpy.savez`."""
        return {"counts": self.counts, "images": np.array(self.images)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.int64]]) -> Self:
        """The one that `to_arrays` was called on."""
        confusion = cls(len(arrays["counts"]))
        confusion.counts += arrays["counts"]
        confusion.images = int(arrays["images"])
        return confusion

    @property
    def truth_pixels(self) -> NDArray[np.int64]:
        """(K,) pixels that are of each class."""
        pixels: NDArray[np.int64] = self.counts.sum(axis=1)
        return pixels

    @property
    def predicted_pixels(self) -> NDArray[np.int64]:
        """(K,) judged pixels that got each class."""
        pixels: NDArray[np.int64] = self.counts[:, :-1].sum(axis=0)
        return pixels

    @property
    def hits(self) -> NDArray[np.int64]:
        """(K,) pixels of each class that got it."""
        return np.diagonal(self.counts)


def _checked(rows: NDArray[np.integer], name: str, special: int, count: int) -> NDArray[np.int64]:
    if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < count:
        raise _no_class(name, rows, special, count)
    return rows.astype(np.int64)


def _no_class(name: str, labels: NDArray[np.integer], special: int, count: int) -> InvalidRegions:
    strange = np.unique(labels[(labels < 0) | (labels >= count)])
    return InvalidRegions(
        "A label has no class",
        field=name,
        expected=f"0 to {count - 1}, or {special} for none",
        got=strange[:9].tolist(),
    )
