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
    changes = a[1:] != a[:-1]
    changes |= b[1:] != b[:-1]
    starts = np.flatnonzero(changes)
    starts += 1
    starts = np.concatenate(([0], starts))
    return a[starts], b[starts], np.diff(starts, append=a.size)


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
        judged = rows != ignore_label
        count = len(self.counts)
        rows = _checked(rows[judged], "truth", ignore_label, count)
        columns = columns[judged]
        decided = columns != undecided_label
        cells = np.full(len(columns), count, np.int64)
        cells[decided] = _checked(columns[decided], "predicted", undecided_label, count)
        self._count(rows * (count + 1) + cells, pixels[judged])
        self.images += 1

    def _count(self, cells: NDArray[np.int64], pixels: NDArray[np.int64]) -> None:
        if self.counts.size <= 1 << 16:
            # Sums of floats are exact below 2^53, far above the pixels of an image.
            found = np.bincount(cells, weights=pixels, minlength=self.counts.size)
            self.counts.ravel()[:] += found.astype(np.int64)
        else:  # few of the many cells occur
            np.add.at(self.counts.ravel(), cells, pixels)

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
