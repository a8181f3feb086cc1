"""mIoU and FB-IoU of few-shot and zero-shot folds: PASCAL-5i, COCO-20i, FSS-1000.

Every episode asks for one class in one image. Pixels of it and of the background are summed by class over all
episodes; mIoU is the mean of the foregrounds' IoU over the fold's classes, FB-IoU the mean of foreground and
background IoU with all classes summed (HSNet `common/logger.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eval.metrics.scores import Category, ClassScore, FewShotScores
from ovperception.errors import InvalidParameter, InvalidRegions

__all__ = ["FewShotIoU"]


class FewShotIoU:
    """Accumulates episodes, in any number of processes whose counts are merged.

    Args:
        categories: the classes of the fold.

    Attributes:
        counts: (K, 2, 2) int64 pixels: class; background, foreground; intersection, union.
        images: how many episodes were taken.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        self.categories = tuple(categories)
        self._row = {category.id: i for i, category in enumerate(self.categories)}
        self.counts = np.zeros((len(self.categories), 2, 2), np.int64)
        self.images = 0

    def add(
        self,
        category_id: int,
        truth: NDArray[np.bool_],
        predicted: NDArray[np.bool_],
        *,
        judged: NDArray[np.bool_] | None = None,
    ) -> None:
        """Takes one episode.

        Args:
            category_id: the class that was asked for.
            truth: (H, W) where it is.
            predicted: (H, W) where it was found.
            judged: (H, W) which pixels count; None for all.

        Raises:
            InvalidRegions: the masks differ in size, or the class is not of the fold.
        """
        if truth.shape != predicted.shape or (judged is not None and judged.shape != truth.shape):
            raise InvalidRegions(
                "The mask is not of the size of its truth", expected=str(truth.shape), got=predicted.shape
            )
        if category_id not in self._row:
            raise InvalidRegions(
                "This class is not of the fold", expected=f"one of {list(self._row)[:9]}", got=category_id
            )
        true, found = truth.astype(bool), predicted.astype(bool)
        if judged is not None:
            true, found = true[judged], found[judged]
        both, either = int((true & found).sum()), int((true | found).sum())
        # The background's intersection is what neither has, its union what not both have.
        counted = [[true.size - either, true.size - both], [both, either]]
        self.counts[self._row[category_id]] += np.array(counted, np.int64)
        self.images += 1

    def merge(self, other: FewShotIoU) -> None:
        """Adds what another one counted.

        Raises:
            InvalidParameter: it is of another fold.
        """
        if [c.id for c in self.categories] != [c.id for c in other.categories]:
            raise InvalidParameter("Two counts are of different folds", field="categories")
        self.counts += other.counts
        self.images += other.images

    def __add__(self, other: FewShotIoU) -> FewShotIoU:
        total = FewShotIoU(self.categories)
        total.merge(self)
        total.merge(other)
        return total

    def scores(self) -> FewShotScores:
        """``mIoU`` and ``FB-IoU``; a class without an episode is not counted."""
        asked = self.counts.sum(axis=(1, 2)) > 0
        iou = self.counts[:, :, 0] / np.maximum(self.counts[:, :, 1], 1)  # (K, 2)
        whole = self.counts.sum(axis=0)
        metrics: dict[str, float | None] = {"mIoU": None, "FB-IoU": None}
        if asked.any():
            metrics = {
                "mIoU": float(iou[asked, 1].mean()),
                "FB-IoU": float((whole[:, 0] / np.maximum(whole[:, 1], 1)).mean()),
            }
        return FewShotScores(
            metrics=metrics,
            per_class=tuple(
                ClassScore(category=c, values={"IoU": float(iou[i, 1]) if asked[i] else None})
                for i, c in enumerate(self.categories)
            ),
            rules={"counted": f"{int(asked.sum())} classes"},
            images=self.images,
        )
