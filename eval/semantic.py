"""Pixel classes: mIoU from one confusion matrix over the whole set.

A mean is over the classes that have ground-truth pixels (detectron2's rule): a class that is predicted but
never there lowers the IoU of those it covers and adds no zero of its own. Pixels the model left undecided
count as missed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.scenes import SceneCategory, SceneSample
from ovperception.errors import InvalidRegions
from ovperception.structures import SemanticMap

__all__ = ["ConfusionMatrix", "SemanticEvaluator"]


class ConfusionMatrix:
    """Counts of pixels by true and predicted class.

    Args:
        count: K, the number of classes.

    Attributes:
        counts: (K, K + 1) int64, true class by predicted class; the last column is "undecided".
    """

    def __init__(self, count: int) -> None:
        self.counts = np.zeros((count, count + 1), np.int64)

    def add(self, truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> None:
        """Takes one image.

        Args:
            truth: (H, W) class per pixel, -1 where it is not judged.
            predicted: (H, W) class per pixel, -1 where undecided.

        Raises:
            InvalidRegions: the maps differ in size, or a label has no class.
        """
        count = len(self.counts)
        if truth.shape != predicted.shape:
            raise InvalidRegions(
                "The map is not of the size of its truth", expected=str(truth.shape), got=predicted.shape
            )
        for name, labels in (("truth", truth), ("predicted", predicted)):
            if labels.size and not -1 <= labels.min() <= labels.max() < count:
                raise InvalidRegions(
                    "A label has no class",
                    field=name,
                    expected=f"-1 to {count - 1}",
                    got=f"{labels.min()} to {labels.max()}",
                )
        judged = truth >= 0
        rows, columns = truth[judged].astype(np.int64), predicted[judged].astype(np.int64)
        columns[columns < 0] = count
        cells, pixels = np.unique(rows * (count + 1) + columns, return_counts=True)
        self.counts.ravel()[cells] += pixels

    def merge(self, other: ConfusionMatrix) -> None:
        """Adds what another one counted."""
        self.counts += other.counts

    @property
    def truth_pixels(self) -> NDArray[np.int64]:
        """(K,) pixels that are of each class."""
        pixels: NDArray[np.int64] = self.counts.sum(axis=1)
        return pixels

    @property
    def iou(self) -> NDArray[np.float64]:
        """(K,) intersection over union of each class, NaN where it has no ground truth."""
        hits = np.diagonal(self.counts).astype(np.float64)
        union = self.truth_pixels + self.counts[:, :-1].sum(axis=0) - hits
        return np.where(self.truth_pixels > 0, hits / np.maximum(union, 1), np.nan)

    def miou(self, classes: Collection[int] | None = None) -> float | None:
        """Mean IoU over the classes, of those that have ground truth; None if none has."""
        return _mean(self.iou if classes is None else self.iou[sorted(classes)])

    def mean_accuracy(self) -> float | None:
        """Mean over the classes of the share of their pixels that was found."""
        pixels = self.truth_pixels
        return _mean(np.where(pixels > 0, np.diagonal(self.counts) / np.maximum(pixels, 1), np.nan))

    def fwiou(self) -> float | None:
        """IoU weighed by how many pixels are of each class."""
        pixels = self.truth_pixels
        return float(np.nansum(self.iou * pixels) / pixels.sum()) if pixels.any() else None

    def pixel_accuracy(self) -> float | None:
        """Share of the judged pixels that got their class."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else None


def _mean(values: NDArray[np.float64]) -> float | None:
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if counted.size else None


class SemanticEvaluator:
    """Collects maps of scenes.

    Args:
        categories: the classes asked for, in the order of the answers' labels; pixels of others are not
            judged.
    """

    def __init__(self, categories: Sequence[SceneCategory]) -> None:
        self._categories = tuple(categories)
        self._index = np.full(max(c.id for c in categories) + 1, -1, np.int32)
        for index, category in enumerate(categories):
            self._index[category.id] = index
        self.confusion = ConfusionMatrix(len(categories))

    def add(self, sample: SceneSample, found: SemanticMap) -> None:
        """Takes one image."""
        ids = sample.labels
        inside = ids < len(self._index)
        truth = np.where(inside, self._index[np.where(inside, ids, 0)], -1)
        self.confusion.add(truth, found.labels)

    def metrics(self) -> dict[str, float | None]:
        """``semantic/...``, 0-1; None where nothing can be said. "Base" is base things and stuff."""
        groups = {
            "": range(len(self._categories)),
            "_base": [i for i, c in enumerate(self._categories) if not c.is_novel],
            "_novel": [i for i, c in enumerate(self._categories) if c.is_novel],
            "_things": [i for i, c in enumerate(self._categories) if c.is_thing],
            "_stuff": [i for i, c in enumerate(self._categories) if not c.is_thing],
        }
        rows = {f"mIoU{name}": self.confusion.miou(classes) for name, classes in groups.items()}
        rows |= {
            "fwIoU": self.confusion.fwiou(),
            "mACC": self.confusion.mean_accuracy(),
            "pACC": self.confusion.pixel_accuracy(),
        }
        return {f"semantic/{name}": value for name, value in rows.items()}
