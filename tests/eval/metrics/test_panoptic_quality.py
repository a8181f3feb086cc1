"""PQ by hand."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics import Category, PanopticQuality, PanopticSegment, Quality
from ovperception.errors import InvalidRegions

Segments = list[PanopticSegment]
CLASSES = [Category(id=10, name="a"), Category(id=20, name="b", is_thing=False), Category(id=30, name="c")]


def quality(truth: list, true: Segments, found: list, predicted: Segments) -> PanopticQuality:
    counted = PanopticQuality(CLASSES)
    counted.add(np.array(truth), true, np.array(found), predicted)
    return counted


def test_by_hand() -> None:
    truth = [[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]
    found = [[7, 7, 7, 8], [8, 8, 8, 8], [0, 0, 9, 9]]
    counted = quality(
        truth,
        [PanopticSegment(1, 10), PanopticSegment(2, 10), PanopticSegment(3, 20)],
        found,
        [PanopticSegment(7, 10), PanopticSegment(8, 10), PanopticSegment(9, 20)],
    )
    # 10: IoU 3/4 and 4/5; 20: IoU exactly 1/2, which is no match
    assert counted.of([10]) == Quality(pq=pytest.approx((0.75 + 0.8) / 2), sq=0.775, rq=1, classes=1)
    assert counted.of([20]) == Quality(pq=0, sq=0, rq=0, classes=1)
    assert counted.of() == Quality(pq=pytest.approx(0.3875), sq=pytest.approx(0.3875), rq=0.5, classes=2)
    assert counted.of([30]) is None
    assert counted.of([10, 30]) == counted.of([10])


def test_void_pixels_are_left_out_of_the_union_and_excuse() -> None:
    truth = [[1, 1, 0, 0, 0, 0]]
    found = [[5, 5, 5, 6, 6, 6]]
    segments = [PanopticSegment(5, 10), PanopticSegment(6, 10)]
    counted = quality(truth, [PanopticSegment(1, 10)], found, segments)
    assert counted.of() == Quality(pq=1, sq=1, rq=1, classes=1)


def test_half_on_void_is_no_excuse() -> None:
    counted = quality([[1, 0]], [PanopticSegment(1, 10)], [[5, 5]], [PanopticSegment(5, 20)])
    assert (counted.tallies[20].fp, counted.tallies[10].fn) == (1, 1)


def test_a_crowd_excuses_its_own_class_only() -> None:
    truth = [[1, 1, 1, 1]]
    crowd = [PanopticSegment(1, 10, is_crowd=True)]
    same = quality(truth, crowd, [[5, 5, 5, 0]], [PanopticSegment(5, 10)])
    assert same.of() is None  # neither matched, nor missed, nor false
    other = quality(truth, crowd, [[5, 5, 5, 0]], [PanopticSegment(5, 20)])
    assert other.tallies[20].fp == 1


def test_merging_is_adding() -> None:
    first = quality([[1, 1]], [PanopticSegment(1, 10)], [[1, 1]], [PanopticSegment(1, 10)])
    second = quality([[1, 1]], [PanopticSegment(1, 10)], [[0, 0]], [])
    first.merge(second)
    assert first.of() == Quality(pq=pytest.approx(2 / 3), sq=1, rq=pytest.approx(2 / 3), classes=1)


@pytest.mark.parametrize(
    ("ids", "segments"),
    [
        ([[1, 2]], [PanopticSegment(1, 10)]),
        ([[1, 1]], [PanopticSegment(1, 10), PanopticSegment(2, 10)]),
        ([[1, 1]], [PanopticSegment(1, 10), PanopticSegment(1, 20)]),
    ],
)
def test_a_map_and_its_list_must_agree(ids: list, segments: Segments) -> None:
    with pytest.raises(InvalidRegions, match="not those of the map"):
        quality([[1, 1]], [PanopticSegment(1, 10)], ids, segments)


def test_maps_of_two_sizes() -> None:
    with pytest.raises(InvalidRegions, match="not of the size"):
        quality([[1]], [PanopticSegment(1, 10)], [[1, 1]], [PanopticSegment(1, 10)])
