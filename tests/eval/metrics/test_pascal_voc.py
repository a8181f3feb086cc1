"""VOC's two averages on a case worked out by hand, and what its devkit does with difficult boxes."""

from __future__ import annotations

from typing import Any

import pytest

from eval.metrics import voc_ap
from ovperception.errors import InvalidParameter


def truth(boxes: list[tuple[int, list[float], int]]) -> dict[str, Any]:
    return {
        "images": [{"id": i, "height": 100, "width": 100} for i in (1, 2)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": 7, "bbox": box, "area": 1, "iscrowd": difficult}
            for n, (image, box, difficult) in enumerate(boxes, 1)
        ],
    }


def results(rows: list[tuple[int, list[float], float]]) -> list[dict[str, Any]]:
    return [{"image_id": i, "category_id": 7, "bbox": box, "score": score} for i, box, score in rows]


A, B, C = [0, 0, 20, 20], [50, 50, 20, 20], [10, 60, 30, 30]


def only(found: dict) -> float | None:
    assert [c.name for c in found] == ["cat", "dog"]
    cat, dog = found.values()
    assert dog is None  # no box of it counts
    return cat


def test_by_hand() -> None:
    there = truth([(1, A, 0), (1, B, 0), (2, C, 0), (2, A, 0)])
    # right, false (twice the same), right, false (nothing there): recall 1/4, 1/4, 2/4, 2/4
    given = results([(1, A, 0.9), (1, A, 0.8), (2, C, 0.7), (2, B, 0.6)])
    assert only(voc_ap(there, given)) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    # recall 0, .1, .2: 1; .3, .4, .5: 2/3; beyond: 0
    assert only(voc_ap(there, given, curve="11 points")) == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)


def test_a_difficult_box_counts_for_nothing() -> None:
    there = truth([(1, A, 0), (1, B, 1)])
    given = results([(1, B, 0.9), (1, B, 0.8), (1, A, 0.7)])
    assert only(voc_ap(there, given)) == only(voc_ap(there, given, curve="11 points")) == 1


def test_whole_pixels() -> None:
    """[0, 9] and [5, 14] share 5 of 15 columns where both ends count; [0, 9) and [5, 14) share 4 of 14."""
    there, given = truth([(1, [0, 0, 9, 9], 0)]), results([(1, [5, 0, 9, 9], 0.5)])
    assert only(voc_ap(there, given, iou=1 / 3 - 1e-9)) == 1
    assert only(voc_ap(there, given, iou=1 / 3 + 1e-9)) == 0


@pytest.mark.parametrize("settings", [{"iou": 0}, {"iou": 1.5}, {"curve": "101"}])
def test_impossible_settings(settings: dict) -> None:
    with pytest.raises(InvalidParameter):
        voc_ap(truth([(1, A, 0)]), [], **settings)
