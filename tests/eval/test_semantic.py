"""mIoU by hand, and equal to the stored numbers of the reference rule."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.semantic import ConfusionMatrix
from ovperception.errors import InvalidRegions


def hand_worked() -> ConfusionMatrix:
    confusion = ConfusionMatrix(4)
    # class 2 is nowhere in the truth, class 3 nowhere at all; one pixel is not judged, one undecided
    truth = np.array([[0, 0, 0, 0], [1, 1, 1, -1]])
    found = np.array([[0, 0, 1, 2], [1, 1, -1, 0]])
    confusion.add(truth, found)
    return confusion


def test_by_hand() -> None:
    confusion = hand_worked()
    # class 0: 2 hits, union 4; class 1: 2 hits, union 3 + 1
    assert confusion.iou[:2].tolist() == [0.5, 0.5]
    assert np.isnan(confusion.iou[2:]).all()
    assert confusion.miou() == 0.5
    assert confusion.miou([1, 2]) == 0.5
    assert confusion.miou([2, 3]) is None
    assert confusion.fwiou() == pytest.approx(0.5)
    assert confusion.pixel_accuracy() == pytest.approx(4 / 7)
    assert confusion.mean_accuracy() == pytest.approx((2 / 4 + 2 / 3) / 2)


def test_merging_is_adding() -> None:
    twice, merged = hand_worked(), hand_worked()
    twice.add(np.array([[2]]), np.array([[2]]))
    other = ConfusionMatrix(4)
    other.add(np.array([[2]]), np.array([[2]]))
    merged.merge(other)
    assert (merged.counts == twice.counts).all()


def test_nothing_seen_is_no_number() -> None:
    empty = ConfusionMatrix(3)
    empty.add(np.full((2, 2), -1), np.zeros((2, 2), int))
    assert empty.miou() is empty.fwiou() is empty.pixel_accuracy() is empty.mean_accuracy() is None


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "not of the size"),
        (np.full((2, 2), 3), np.zeros((2, 2), int), "no class"),
        (np.zeros((2, 2), int), np.full((2, 2), -2), "no class"),
    ],
)
def test_maps_that_do_not_fit(truth: np.ndarray, found: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidRegions, match=message):
        ConfusionMatrix(3).add(truth, found)


@pytest.mark.parity
@pytest.mark.parametrize("change", ["identity", "roll7", "blank_top_half"])
def test_equal_to_the_reference(shared_dir: Path, change: str) -> None:
    goldens = json.loads((shared_dir / "eval/goldens.json").read_text())["sceneparsing_sample"]
    folder = shared_dir / "eval/data/CSAILVision__sceneparsing/sampleData/annotations"
    maps = [
        cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED).astype(np.int64) - 1 for name in goldens["files"]
    ]
    confusion = ConfusionMatrix(150)
    for truth in maps:
        found = truth.copy()
        if change == "roll7":
            found = np.roll(truth, 7, axis=1)
        elif change == "blank_top_half":
            found[: len(found) // 2] = -1
        # The reference gives every pixel a class: where there would be none, the first.
        confusion.add(truth, np.maximum(found, 0))
    expected = goldens[change]
    assert confusion.miou() == pytest.approx(expected["mIoU_gt_classes"], abs=1e-12)
    assert confusion.fwiou() == pytest.approx(expected["fwIoU"], abs=1e-12)
    assert confusion.mean_accuracy() == pytest.approx(expected["mAcc"], abs=1e-12)
    assert confusion.pixel_accuracy() == pytest.approx(expected["aAcc"], abs=1e-12)
