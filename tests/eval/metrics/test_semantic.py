"""mIoU by hand, by each averaging rule."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics import AveragingRule, Category, ConfusionMatrix, miou, score_semantic
from ovperception.errors import InvalidRegions


def hand_worked() -> ConfusionMatrix:
    confusion = ConfusionMatrix(4)
    # class 2 is nowhere in the truth, class 3 nowhere at all; one pixel is not judged, one undecided
    truth = np.array([[0, 0, 0, 0], [1, 1, 1, -1]])
    found = np.array([[0, 0, 1, 2], [1, 1, -1, 0]])
    confusion.add(truth, found)
    return confusion


CLASSES = [Category(id=i, name=str(i), group="even" if i % 2 == 0 else "odd") for i in range(4)]


# class 0: 2 hits, union 4; class 1: 2 hits, union 3 + 1; class 2 is predicted once
@pytest.mark.parametrize(
    ("rule", "expected", "accuracy"),
    [
        ("detectron2", 1 / 2, (2 / 4 + 2 / 3) / 2),
        ("mmseg", 1 / 3, (2 / 4 + 2 / 3) / 2),
        ("sceneparsing", 1 / 4, (2 / 4 + 2 / 3) / 4),
    ],
)
def test_by_hand(rule: AveragingRule, expected: float, accuracy: float) -> None:
    found = score_semantic(hand_worked(), CLASSES, rule=rule)
    assert found.metrics["mIoU"] == pytest.approx(expected)
    assert found.metrics["mACC"] == pytest.approx(accuracy)
    assert found.metrics["fwIoU"] == pytest.approx(0.5)
    assert found.metrics["pACC"] == pytest.approx(4 / 7)
    assert found.metrics["mIoU_odd"] == pytest.approx({"sceneparsing": 0.25}.get(rule, 0.5))
    assert found.warnings == {"undecided_pixel": 1}
    assert found.per_class[0].values == {"IoU": 0.5, "ACC": 0.5, "pixels": 4, "predicted_pixels": 2}


def test_of_some_classes() -> None:
    assert miou(hand_worked(), [1, 2]) == 0.5
    assert miou(hand_worked(), [2, 3]) is None


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
    for rule in ("detectron2", "mmseg", "sceneparsing"):
        assert set(score_semantic(empty, CLASSES[:3], rule=rule).metrics.values()) == {None}


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
