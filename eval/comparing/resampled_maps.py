"""The numbers of maps in every resample of the images, from what each image added to each class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from eval.outcome import EDGE_COLUMNS, ImageCounts

__all__ = ["resampled_qualities"]

Values = NDArray[np.float64]


def resampled_qualities(
    counts: ImageCounts, classes: int, weights: NDArray[np.int32], rule: str
) -> dict[str, Values]:
    """By name: (R, K) of each class, NaN where the averaging rule does not count it, or (R,) of all pixels.

    PQ, SQ and RQ; or IoU, ACC, fwIoU and pACC, and boundary_IoU where boundaries were judged.

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
    column = {name: values.T for name, values in zip(counts.columns, sums, strict=True)}
    return _panoptic(column) if "tp" in column else _semantic(column, rule)


def _panoptic(column: Mapping[str, Values]) -> dict[str, Values]:
    tp, iou = column["tp"], column["iou"]
    weight = tp + 0.5 * column["fp"] + 0.5 * column["fn"]
    counted = np.where(weight > 0, weight, np.nan)
    return {
        "PQ": iou / counted,
        "SQ": np.where(weight > 0, iou / np.maximum(tp, 1), np.nan),
        "RQ": tp / counted,
    }


def _semantic(column: Mapping[str, Values], rule: str) -> dict[str, Values]:
    hits, truth = column["intersection"], column["truth"]
    union = truth + column["predicted"] - hits
    iou, accuracy = hits / np.maximum(union, 1), hits / np.maximum(truth, 1)
    whole = {"mmseg": union > 0, "sceneparsing": np.ones_like(union, bool)}.get(rule, truth > 0)
    # Of a class that is nowhere mmseg divides 0 by 0, and leaves it out of mACC.
    found = whole & (truth > 0) if rule == "mmseg" else whole
    judged = np.maximum(truth.sum(axis=1), 1)
    qualities = {
        "IoU": np.where(whole, iou, np.nan),
        "ACC": np.where(found, accuracy, np.nan),
        "fwIoU": (iou * truth).sum(axis=1) / judged,
        "pACC": hits.sum(axis=1) / judged,
    }
    if set(EDGE_COLUMNS) <= set(column):
        both, either, counted = (column[name] for name in EDGE_COLUMNS)
        qualities["boundary_IoU"] = np.where(counted > 0, both / np.maximum(either, 1), np.nan)
    return qualities
