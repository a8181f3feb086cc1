"""The IoU or PQ of every class in every resample of the images, from what each image added to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eval.outcome import ImageCounts

__all__ = ["resampled_quality"]


def resampled_quality(
    counts: ImageCounts, classes: int, weights: NDArray[np.int32], rule: str
) -> NDArray[np.float64]:
    """(R, K) IoU or PQ; NaN where the averaging rule does not count a class.

    Args:
        counts: of a run.
        classes: K, the number of classes.
        weights: (R, I) how often each image is drawn.
        rule: of the averaging: "detectron2", "mmseg" or "sceneparsing"; PQ has one only.
    """
    sums = np.zeros((len(counts.columns), classes, len(weights)))
    # By class, so that memory stays that of one class's images for all resamples.
    order = np.argsort(counts.classes, kind="stable")
    edges = np.searchsorted(counts.classes[order], np.arange(classes + 1))
    for k in range(classes):
        rows = order[edges[k] : edges[k + 1]]
        if len(rows):
            sums[:, k] = (weights[:, counts.images[rows]] @ counts.values[rows]).T
    column = dict(zip(counts.columns, sums, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        if "tp" in column:
            weight = column["tp"] + 0.5 * column["fp"] + 0.5 * column["fn"]
            return np.where(weight > 0, column["iou"] / weight, np.nan).T
        union = column["truth"] + column["predicted"] - column["intersection"]
        iou = np.where(union > 0, column["intersection"] / union, 0.0)
    counted = {"mmseg": union > 0, "sceneparsing": np.ones_like(union, bool)}
    return np.where(counted.get(rule, column["truth"] > 0), iou, np.nan).T
