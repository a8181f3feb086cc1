"""How well one image went, and what was taken for what: for looking at, not for the metric."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Agreement", "box_agreement", "box_iou"]

_RIGHT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What one image showed.

    Attributes:
        score: 0-1, or None where there was nothing to find.
        objects: true ones.
        found: of them found and named rightly.
        pairs: (true class, given class) -> how often; -1 for "nothing there" and "not found".
    """

    score: float | None
    objects: int
    found: int
    pairs: Counter[tuple[int, int]]


def box_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M) overlap of (N, 4) and (M, 4) xyxy boxes, half-open."""
    corners = np.maximum(first[:, None, :2], second[None, :, :2])
    ends = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.clip(ends - corners, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (first, second)]
    either = areas[0][:, None] + areas[1][None, :] - both
    overlap: NDArray[np.float64] = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return overlap


def box_agreement(
    truth: NDArray[np.float64],
    truth_classes: NDArray[np.int64],
    found: NDArray[np.float64],
    found_classes: NDArray[np.int64],
) -> Agreement:
    """Compares the R true objects with the R highest detections, whatever their scores are.

    Args:
        truth: (R, 4) xyxy, crowds left out.
        truth_classes: (R,).
        found: (N, 4) xyxy, highest score first.
        found_classes: (N,).
    """
    count = len(truth)
    found, found_classes = found[:count], found_classes[:count]
    pairs: Counter[tuple[int, int]] = Counter()
    right = 0
    free = np.ones(count, np.bool_)
    overlaps = box_iou(found, truth)
    for row, given in zip(overlaps, found_classes.tolist(), strict=True):
        open_ = np.where(free & (row >= _RIGHT), row, -1.0)
        # Of several the one of the same class, then the best overlap.
        order = open_ + (truth_classes == given) * (open_ > 0)
        best = int(order.argmax()) if count else -1
        if best < 0 or open_[best] < 0:
            pairs[-1, given] += 1
            continue
        free[best] = False
        true = int(truth_classes[best])
        pairs[true, given] += 1
        right += true == given
    for true in truth_classes[free].tolist():
        pairs[true, -1] += 1
    return Agreement(score=right / count if count else None, objects=count, found=right, pairs=pairs)
