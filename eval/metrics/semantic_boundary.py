"""mIoU of the boundaries of classes, which the insides of large regions cannot hide (Cheng et al. 2021).

Two rules. ``per class`` is the paper's: the boundary of a class is what of its pixels is near to one that is
not of it, in truth and prediction each. ``detectron2`` is what its `SemSegEvaluator` prints beside mIoU for
fewer than 255 classes: it erodes the map of labels as if it were a mask, and counts the differences as
labels; its numbers are comparable among themselves alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from eval.metrics.boundary import BOUNDARY_RATIO, boundary, boundary_width
from eval.metrics.confusion import ConfusionMatrix
from eval.metrics.scores import SemanticScores
from ovperception.errors import InvalidParameter, InvalidRegions, Unsupported

__all__ = ["BoundaryIoU", "BoundaryRule", "with_boundary"]

BoundaryRule = Literal["per class", "detectron2"]
_BYTES = 255


class BoundaryIoU:
    """Counts boundary pixels image by image; mergeable, and as large as the number of classes.

    Args:
        count: K, the number of classes.
        rule: whose boundaries.

    Attributes:
        confusion: of boundary pixels by the rule of detectron2; of "per class" its diagonal and sums are not
            used.
        counts: (K, 2) pixels in both boundaries and in either.

    Raises:
        InvalidParameter: the rule is not known.
        Unsupported: detectron2's rule has no labels beyond 254.
    """

    def __init__(self, count: int, rule: BoundaryRule = "per class") -> None:
        if rule not in get_args(BoundaryRule):
            raise InvalidParameter(
                "This rule is not known", field="rule", expected=" or ".join(get_args(BoundaryRule)), got=rule
            )
        if rule == "detectron2" and count >= _BYTES:
            raise Unsupported(
                "detectron2 has no boundary IoU of so many classes", expected="up to 254", got=count
            )
        self.rule = rule
        self.confusion = ConfusionMatrix(count + 1)
        self.counts = np.zeros((count, 2), np.int64)

    def add(
        self, truth: NDArray[np.integer], predicted: NDArray[np.integer], *, ignore_label: int = -1
    ) -> None:
        """Takes one image: (H, W) classes, `ignore_label` in the truth where nothing is judged.

        Raises:
            InvalidRegions: the maps differ in size.
        """
        if truth.shape != predicted.shape:
            raise InvalidRegions(
                "The map is not of the size of its truth", expected=str(truth.shape), got=predicted.shape
            )
        height, width = truth.shape
        near = boundary_width((height, width))
        if self.rule == "detectron2":
            self._add_labels(truth, predicted, ignore_label, near)
        else:
            self._add_classes(truth, predicted, truth != ignore_label, near)

    def _add_labels(
        self, truth: NDArray[np.integer], predicted: NDArray[np.integer], ignore_label: int, near: int
    ) -> None:
        none = len(self.counts)  # pixels of no class are one more class, which is not in the mean
        first = np.where(truth == ignore_label, none, truth).astype(np.uint8)
        second = np.where(predicted < 0, none, predicted).astype(np.uint8)
        self.confusion.add(boundary(first, near), boundary(second, near))

    def _add_classes(
        self,
        truth: NDArray[np.integer],
        predicted: NDArray[np.integer],
        judged: NDArray[np.bool_],
        near: int,
    ) -> None:
        for index in np.union1d(truth[judged], predicted[judged]).tolist():
            if 0 <= index < len(self.counts):
                edges = [boundary((m == index).astype(np.uint8), near) > 0 for m in (truth, predicted)]
                self.counts[index, 0] += int((edges[0] & edges[1] & judged).sum())
                self.counts[index, 1] += int(((edges[0] | edges[1]) & judged).sum())

    def merge(self, other: BoundaryIoU) -> None:
        """Adds what another one counted by the same rule."""
        self.confusion.merge(other.confusion)
        self.counts += other.counts

    def cells(self) -> list[list[int]]:
        """What was counted, as [place, pixels] of the places that are not zero: small, for one image."""
        table = self._table()
        places = np.flatnonzero(table)
        return [[place, int(table[place])] for place in places.tolist()]

    def add_cells(self, cells: Iterable[tuple[int, int]]) -> None:
        """Adds the `cells` of another one that counts by the same rule."""
        table = self._table()
        for place, pixels in cells:
            table[place] += pixels

    def _table(self) -> NDArray[np.int64]:
        table: NDArray[np.int64] = self.confusion.counts if self.rule == "detectron2" else self.counts
        return table.reshape(-1)

    def sums(self) -> NDArray[np.int64]:
        """(K, 3) pixels in both boundaries, in either, and those without which a class does not count."""
        if self.rule == "per class":
            return np.column_stack([self.counts, self.counts[:, 1]])
        confusion, count = self.confusion, len(self.counts)
        hits, true = confusion.hits[:count], confusion.truth_pixels[:count]
        # Its union is of all pixels, those of no class included, and its mean over classes in the truth.
        return np.column_stack([hits, true + confusion.counts[:, :count].sum(axis=0) - hits, true])

    def per_class(self) -> NDArray[np.float64]:
        """(K,) boundary IoU, NaN where no boundary is."""
        both, either, counted = self.sums().T
        return np.where(counted > 0, both / np.maximum(either, 1), np.nan)

    def mean(self) -> float | None:
        """Mean over the classes that have a boundary; None without any."""
        counted = self.per_class()
        counted = counted[~np.isnan(counted)]
        return float(counted.mean()) if counted.size else None


def with_boundary(scores: SemanticScores, edges: BoundaryIoU) -> SemanticScores:
    """The scores and, beside them, ``boundary_mIoU`` and each class's ``boundary_IoU``."""
    counted = [None if np.isnan(value) else float(value) for value in edges.per_class()]
    return replace(
        scores,
        metrics={**scores.metrics, "boundary_mIoU": edges.mean()},
        per_class=tuple(
            replace(row, values={**row.values, "boundary_IoU": value})
            for row, value in zip(scores.per_class, counted, strict=True)
        ),
        rules={**scores.rules, "boundary": f"{edges.rule}, {BOUNDARY_RATIO:.0%} of the diagonal"},
    )
