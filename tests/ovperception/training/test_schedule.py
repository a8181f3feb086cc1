"""Schedules: the papers' shapes, by hand-worked values."""

from __future__ import annotations

import pytest

from ovperception.errors import InvalidParameter
from ovperception.training.schedule import Schedule


def test_a_cosine_warms_up_and_falls_to_a_hundredth() -> None:
    plan = Schedule(steps=100, learning_rate=1.0, warmup=10)
    assert plan.rate(0, 0) == pytest.approx(0.1)
    assert plan.rate(50, 0) == pytest.approx(0.505)
    assert plan.rate(100, 0) == pytest.approx(0.01)


def test_minutes_end_a_run_that_is_too_slow_for_its_steps() -> None:
    plan = Schedule(steps=1000, learning_rate=1.0, minutes=1)
    assert plan.progress(10, 30) == pytest.approx(0.5)
    assert plan.progress(10, 61) == 1.0


def test_steps_fall_at_their_fractions() -> None:
    plan = Schedule(steps=100, learning_rate=2.0, warmup=0, shape="steps", decay_at=(0.9, 0.95))
    assert [plan.rate(step, 0) for step in (0, 89, 90, 94, 95, 99)] == pytest.approx(
        [2.0, 2.0, 0.2, 0.2, 0.02, 0.02]
    )


def test_poly_by_epochs_is_flat_within_one() -> None:
    plan = Schedule(steps=100, learning_rate=1.0, warmup=0, shape="poly", stairs=4)
    assert plan.rate(0, 0) == plan.rate(24, 0) == 1.0
    assert plan.rate(25, 0) == pytest.approx(0.75**0.9)
    assert plan.rate(99, 0) == pytest.approx(0.25**0.9)
    smooth = Schedule(steps=100, learning_rate=1.0, warmup=0, shape="poly")
    assert smooth.rate(24, 0) == pytest.approx(0.76**0.9)


def test_a_warm_up_may_begin_at_a_share_as_in_detectron2() -> None:
    plan = Schedule(steps=10_000, learning_rate=1.0, warmup=1000, warmup_from=0.001, shape="constant")
    assert plan.rate(0, 0) == pytest.approx(0.001)
    assert plan.rate(500, 0) == pytest.approx(0.001 * 0.5 + 0.5)
    assert plan.rate(1000, 0) == 1.0


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"minutes": 0.0}, "minutes"),
        ({"decay_at": (0.9, 0.5)}, "decay_at"),
        ({"decay_at": (90.0,)}, "decay_at"),
    ],
    ids=str,
)
def test_a_schedule_that_trains_nothing_is_refused(changed: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidParameter, match=field) as caught:
        Schedule(**({"steps": 1, "learning_rate": 1.0} | changed))  # type: ignore[arg-type]
    assert caught.value.field == field
