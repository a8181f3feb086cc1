"""Boxes as a caller brings them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovperception.boxes import MAX_BOXES, as_boxes, boxes_inside
from ovperception.errors import InvalidRegions


@pytest.mark.parametrize("empty", [[], [[]], np.zeros((0, 4)), np.zeros((3, 0))])
def test_nothing(empty: Any) -> None:
    assert as_boxes(empty).shape == boxes_inside(empty, (5, 5)).shape == (0, 4)
    assert as_boxes(empty).dtype == np.float32


@pytest.mark.parametrize("wrong", [[[1, 2, 3]], [1, 2, 3, 4], "boxes", [["a", 1, 2, 3]], [[[1, 2, 3, 4]]]])
def test_shapes_and_types(wrong: Any) -> None:
    with pytest.raises(InvalidRegions):
        as_boxes(wrong)


def test_what_the_numbers_say_is_another_question() -> None:
    for box in ([0, 0, float("nan"), 3], [3, 0, 3, 5], [5, 5, 2, 9], [10, 0, 12, 3], [0, 20, 3, 30]):
        assert as_boxes([box]).shape == (1, 4)
        with pytest.raises(InvalidRegions) as caught:
            boxes_inside([[0, 0, 3, 3], box], (20, 10))
        assert caught.value.field == "boxes[1]"


def test_a_box_may_reach_outside_and_stays_as_it_is() -> None:
    box = np.array([[-5, -5, 30, 2.5]], np.float32)
    assert np.array_equal(boxes_inside(box, (20, 10)), box)


def test_too_many() -> None:
    assert len(boxes_inside(np.tile([0, 0, 1, 1], (MAX_BOXES, 1)), (4, 4))) == MAX_BOXES
    with pytest.raises(InvalidRegions, match="too many"):
        boxes_inside(np.tile([0, 0, 1, 1], (MAX_BOXES + 1, 1)), (4, 4))
