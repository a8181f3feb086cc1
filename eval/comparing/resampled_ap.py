"""The AP of every class in every resample of the images.

Only right detections move the curve: after each of them, precision is the weight of the right ones over the
weight of all so far, an image drawn twice having weight two. So a class costs one running sum over its
detections, and one over its right ones at each overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from eval.comparing.matches import ClassMatches
from eval.metrics.precision_recall import RECALL_POINTS

__all__ = ["chunks", "resampled_ap"]

_CELLS = 1 << 24
"""Numbers held at once: bounds the memory, whatever the size of a class."""


def resampled_ap(
    matches: Mapping[int, ClassMatches], class_ids: list[int], weights: NDArray[np.int32]
) -> NDArray[np.float64]:
    """(R, K, T) AP at each of the T = 10 overlaps; NaN where a resample has no object of the class.

    Args:
        matches: by class id.
        class_ids: (K,) in the order wanted; one without matches has no objects.
        weights: (R, I) how often each image is drawn.
    """
    found = np.full((len(weights), len(class_ids), 10), np.nan)
    for k, class_id in enumerate(class_ids):
        if class_id not in matches:
            continue
        one = matches[class_id]
        for rows in chunks(len(weights), len(one.images)):
            found[rows, k] = _class(one, weights[rows])
    return found


def chunks(resamples: int, detections: int) -> Iterator[slice]:
    """Parts of the resamples that are held at once."""
    step = max(1, _CELLS // max(1, detections))
    for start in range(0, resamples, step):
        yield slice(start, min(start + step, resamples))


def _class(one: ClassMatches, weights: NDArray[np.int32]) -> NDArray[np.float64]:
    """(R, T)."""
    objects = weights @ one.objects  # (R,)
    drawn = weights[:, one.images]  # (R, n)
    so_far = np.cumsum(drawn, axis=1, dtype=np.int64)
    found = np.full((len(weights), len(one.right)), np.nan)
    for t, (right, ignored) in enumerate(zip(one.right, one.ignored, strict=True)):
        at = np.flatnonzero(right)
        counted = so_far[:, at]
        if ignored.any():
            of_ignored = np.cumsum(drawn[:, ignored], axis=1, dtype=np.int64)
            before = np.searchsorted(np.flatnonzero(ignored), at)
            padded = np.concatenate([np.zeros((len(drawn), 1), of_ignored.dtype), of_ignored], axis=1)
            counted = counted - padded[:, before]
        found[:, t] = _average_precision(np.cumsum(drawn[:, at], axis=1, dtype=np.int64), counted, objects)
    return found


def _average_precision(
    right: NDArray[np.int64], counted: NDArray[np.int64], objects: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(R,) mean of the precision at 101 recalls, interpolated as COCO does.

    Args:
        right: (R, m) weight of right detections up to each of them.
        counted: (R, m) weight of all that count up to there.
        objects: (R,) weight of the objects.
    """
    resamples, m = right.shape
    precision = np.zeros((resamples, m + 1))
    np.divide(right, counted, out=precision[:, :m], where=counted > 0)
    # The best precision at this recall or any higher one.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    needed = np.ceil(np.outer(objects, RECALL_POINTS) - 1e-9).astype(np.int64)
    # 7 of 20 is not 0.35 to the last bit, and the reference compares bits.
    needed += needed / np.maximum(objects, 1)[:, None] < RECALL_POINTS
    # One search for all rows: each lies in a range of numbers of its own.
    width = int(max(right.max(initial=0), needed.max(initial=0))) + 2
    shift = np.arange(resamples)[:, None] * width
    places = np.searchsorted((right + shift).ravel(), (needed + shift).ravel(), side="left")
    places = places.reshape(needed.shape) - np.arange(resamples)[:, None] * m
    found = np.take_along_axis(precision, np.minimum(places, m), axis=1).mean(axis=1)
    return np.where(objects > 0, found, np.nan)
