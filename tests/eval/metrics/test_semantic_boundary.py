"""Boundaries of classes: by hand, by a plain reading of detectron2's code, and put together from parts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from eval.metrics import BoundaryIoU
from ovperception.errors import InvalidParameter, InvalidRegions, Unsupported


def test_by_hand() -> None:
    """Near is one pixel here. A square of 4 x 4 has 12 boundary pixels; moved by one it shares 6 of 18."""
    truth, moved = np.zeros((2, 20, 20), np.int64)
    truth[5:9, 5:9] = 1
    moved[5:9, 6:10] = 1
    found = BoundaryIoU(3)
    found.add(truth, moved)
    square = found.per_class()
    columns = 4 + 4 - 2  # both rims: three columns of top and bottom row
    assert square[1] == pytest.approx(columns / (12 + 12 - columns))
    assert np.isnan(square[2])
    assert found.mean() == pytest.approx(np.nanmean(square))


def detectron2(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`SemSegEvaluator._mask_to_boundary`, in its steps."""
    height, width = mask.shape
    steps = max(1, round(0.02 * np.sqrt(height**2 + width**2)))
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=steps)
    return mask - eroded[1:-1, 1:-1]


def test_detectron2() -> None:
    rng, count = np.random.default_rng(0), 5
    matrix = np.zeros((count + 1, count + 1), np.int64)
    found, half = BoundaryIoU(count, "detectron2"), BoundaryIoU(count, "detectron2")
    for n in range(4):
        truth, given = np.kron(rng.integers(0, count, (2, 6, 8)), np.ones((1, 16, 16), np.int64))
        given = np.roll(np.where(rng.random(truth.shape) < 0.9, truth, given), n, 1)
        truth[:9, :9] = 255
        (found if n % 2 else half).add(truth, given, ignore_label=255)
        first = detectron2(np.where(truth == 255, count, truth).astype(np.uint8))
        second = detectron2(given.astype(np.uint8))
        np.add.at(matrix, (second, first), 1)
    found.merge(half)
    hits, there, called = np.diagonal(matrix)[:-1], matrix[:, :-1].sum(0), matrix[:-1].sum(1)
    expected = np.where(there > 0, hits / np.maximum(there + called - hits, 1), np.nan)
    np.testing.assert_allclose(found.per_class(), expected, rtol=1e-12)


def test_pixels_that_are_not_judged() -> None:
    truth = np.zeros((30, 30), np.int64)
    truth[:, 15:] = 1
    given = truth.copy()
    given[:10] = 2
    truth[:10] = 255
    found = BoundaryIoU(3)
    found.add(truth, given, ignore_label=255)
    assert found.per_class()[2] == 0 or np.isnan(found.per_class()[2])
    assert found.mean() > 0.8


def test_bad_input() -> None:
    with pytest.raises(InvalidParameter, match="per class or detectron2"):
        BoundaryIoU(3, "mine")  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="254"):
        BoundaryIoU(255, "detectron2")
    with pytest.raises(InvalidRegions):
        BoundaryIoU(3).add(np.zeros((2, 2), int), np.zeros((3, 2), int))
