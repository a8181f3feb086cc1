"""What comes of a piece of work."""

import threading
from concurrent.futures import CancelledError

import pytest

from serving.outcomes import Outcome


def test_a_value_is_given_once():
    outcome = Outcome()
    assert outcome.start()
    assert not outcome.start()
    outcome.give(1)
    outcome.give(2)
    outcome.refuse(ValueError())
    outcome.cancel()
    assert outcome.ended
    assert not outcome.cancelled
    assert outcome.result() == 1


def test_an_error_is_raised_for_who_waits():
    outcome = Outcome()
    outcome.refuse(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        outcome.result()


def test_what_was_cancelled_is_taken_out_and_not_begun():
    outcome, forgotten, roused = Outcome(), [], []
    outcome.when_cancelled(lambda: forgotten.append(1))
    outcome.when_ended(lambda: roused.append(1))
    outcome.cancel()
    outcome.cancel()
    assert (forgotten, roused) == ([1], [1])
    assert not outcome.start()
    outcome.give(1)  # by who has not noticed yet
    with pytest.raises(CancelledError):
        outcome.result()


def test_what_was_begun_cannot_be_cancelled():
    outcome, forgotten = Outcome(), []
    outcome.when_cancelled(lambda: forgotten.append(1))
    assert outcome.start()
    outcome.cancel()
    assert not outcome.cancelled
    outcome.give(1)
    assert outcome.result() == 1
    assert not forgotten


def test_who_waits_late_is_roused_at_once():
    outcome, roused = Outcome(), []
    outcome.give(None)
    outcome.when_ended(lambda: roused.append(1))
    assert roused == [1]


def test_waiting_ends_with_the_value_or_with_time():
    outcome = Outcome()
    with pytest.raises(TimeoutError):
        outcome.result(0.01)
    threading.Timer(0.01, outcome.give, [3]).start()
    assert outcome.result(10) == 3
