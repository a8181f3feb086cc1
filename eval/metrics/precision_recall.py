"""Precision and recall as COCO accumulates them, and the means that are taken of them.

The means are those of pycocotools' and lvis-api's `_summarize`, in their order of summation: over all
entries above -1, which says "no ground truth here".
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidParameter

__all__ = [
    "AREAS",
    "AREA_RANGES",
    "IOU_THRESHOLDS",
    "RECALL_POINTS",
    "Area",
    "PrecisionRecall",
    "mean_counted",
]

Area = Literal["all", "small", "medium", "large"]
AREAS: tuple[Area, ...] = get_args(Area)
AREA_RANGES: tuple[tuple[float, float], ...] = ((0, 1e10), (0, 1024), (1024, 9216), (9216, 1e10))
"""Pixels squared, both ends included."""
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrecisionRecall:
    """What an engine accumulated: T = 10 thresholds, R = 101 recalls, K classes, A = 4 areas, M limits.

    Attributes:
        precision: (T, R, K, A, M), -1 where a class has no ground truth of that area.
        recall: (T, K, A, M), the same at the end of the curve.
        category_ids: (K,) ids in ascending order; (-1,) if classes were not told apart.
        max_detections: (M,) limits in ascending order.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    category_ids: tuple[int, ...]
    max_detections: tuple[int, ...]

    def ap(
        self, categories: Collection[int] | None = None, *, iou: float | None = None, area: Area = "all"
    ) -> float | None:
        """Mean precision over the classes that have ground truth; None if none has.

        Args:
            categories: ids of the classes; None for all.
            iou: 0.5 to 0.95 by 0.05; None for the mean of all ten.
            area: of the objects.
        """
        chosen = self._classes(self.precision[..., AREAS.index(area), -1], categories)
        return mean_counted(chosen if iou is None else chosen[_threshold(iou)])

    def ar(
        self,
        categories: Collection[int] | None = None,
        *,
        area: Area = "all",
        max_detections: int | None = None,
    ) -> float | None:
        """Mean of the highest recall over the IoU thresholds and the classes; None without any.

        Args:
            categories: ids of the classes; None for all.
            area: of the objects.
            max_detections: one of the limits; None for the highest.
        """
        limit = -1 if max_detections is None else self.max_detections.index(max_detections)
        return mean_counted(self._classes(self.recall[..., AREAS.index(area), limit], categories))

    def per_class(self, iou: float | None = None, *, area: Area = "all") -> dict[int, float | None]:
        """The AP of each class, by its id; None where it has no ground truth of that area."""
        values = self.precision[..., AREAS.index(area), -1]
        if iou is not None:
            index = _threshold(iou)
            values = values[index : index + 1]
        # A class has entries at all thresholds and recalls or at none.
        by_class = np.ascontiguousarray(np.moveaxis(values, -1, 0)).reshape(len(self.category_ids), -1)
        means = zip(by_class[:, 0].tolist(), by_class.mean(axis=1).tolist(), strict=True)
        return dict(
            zip(self.category_ids, (mean if first > -1 else None for first, mean in means), strict=True)
        )

    def curve(self, category: int, *, iou: float = 0.5, area: Area = "all") -> NDArray[np.float64] | None:
        """(101,) precision at recall 0, 0.01, ... 1 of a class; None if it has no ground truth.

        Raises:
            InvalidParameter: the class was not judged.
        """
        if category not in self.category_ids:
            raise InvalidParameter("This class was not judged", field="category", got=category)
        index = self.category_ids.index(category)
        values = self.precision[_threshold(iou), :, index, AREAS.index(area), -1]
        return None if values[0] == -1 else values

    def _classes(
        self, values: NDArray[np.float64], categories: Collection[int] | None
    ) -> NDArray[np.float64]:
        if categories is None:
            return values
        wanted = frozenset(categories)
        return values[..., [i for i, c in enumerate(self.category_ids) if c in wanted]]


def _threshold(iou: float) -> int:
    index = round((iou - 0.5) / 0.05)
    if not 0 <= index < len(IOU_THRESHOLDS) or abs(IOU_THRESHOLDS[index] - iou) > 1e-6:
        raise InvalidParameter(
            "Nothing was counted at this IoU", field="iou", expected="0.5 to 0.95 by 0.05", got=iou
        )
    return index


def mean_counted(values: NDArray[np.float64]) -> float | None:
    """Mean of the entries above -1; None if there is none."""
    counted = values[values > -1]
    return float(np.mean(counted)) if counted.size else None
