"""Which images share a pass, and who waits for whom."""

import threading
import time

import numpy as np
import pytest

from ovperception.errors import (
    InvalidImage,
    InvalidParameter,
)
from ovperception.vocabulary import Vocabulary
from serving.jobs import Terms
from tests.serving.engine_calls import PICTURE, ask_about, encoded, in_threads, queue_up, see, wait_for
from tests.serving.fake_context import FakeContext
from tests.serving.fake_model import POISON, FakeModel


def test_a_batch_is_of_one_size_and_within_its_pixels(start):
    model = FakeModel()
    engine = start(model, max_batch=8, max_batch_pixels=3 * 64 * 64)
    small, large = np.zeros((64, 64, 3), np.uint8), np.zeros((128, 128, 3), np.uint8)
    calls, _ = queue_up(engine, model, [encoded(small)] * 7 + [encoded(large)] * 2)
    model.release()
    for call in calls:
        call.result(10)
    sizes = [(len(batch), set(batch)) for batch in model.batches[1:]]
    assert all(len(shapes) == 1 for _, shapes in sizes)
    assert sorted(count for count, shapes in sizes if shapes == {small.shape}) == [1, 3, 3]
    assert [count for count, shapes in sizes if shapes == {large.shape}] == [1, 1]


def test_a_poisoned_image_fails_alone(start):
    model = FakeModel()
    engine = start(model)
    poison = PICTURE.copy()
    poison[0, 0, 0] = POISON
    calls, _ = queue_up(engine, model, [encoded(poison) if i == 3 else encoded() for i in range(7)])
    model.release()
    failed = [type(call.exception(10)) for call in calls]
    assert failed.count(InvalidImage) == 1
    assert failed.count(type(None)) == 7


def test_an_interactive_call_goes_before_bulk(start):
    model = FakeModel()
    engine = start(model, max_batch=1)
    order = []

    def call(name, priority):
        see(engine, model, context=FakeContext(machine=name, priority=priority))
        order.append(priority)

    model.hold()
    _, (first,) = in_threads([lambda: see(engine, model)])
    assert model.busy.wait(10)
    _, bulk = in_threads([lambda i=i: call(f"bulk{i}", "bulk") for i in range(6)])
    wait_for(lambda: engine.worker.depths()["images"] == 6)
    _, human = in_threads([lambda: call("human", "interactive")])
    wait_for(lambda: engine.worker.depths()["images"] == 7)
    taken, take = [], engine.worker._turns.take
    engine.worker._turns.take = lambda: taken.append(take()) or taken[-1]
    model.release()
    for some in (first, *bulk, *human):
        some.result(10)
    assert "interactive" in [work[0].priority for work in taken if isinstance(work, list)][:2]


def test_who_was_looked_at_is_answered_before_the_next_batch(start, monkeypatch):
    monkeypatch.setattr("serving.turns._LONGEST_HANDOVER_S", 5.0)
    monkeypatch.setattr("serving.turns._HANDOVER_SHARE", 1e6)
    model = FakeModel()
    engine = start(model, max_batch=2)
    order, look = [], model.look
    model.look = lambda pictures: order.append("look") or look(pictures)
    model.hold()
    _, calls = in_threads([lambda: see(engine, model, ask=lambda scene: order.append("answer"))] * 5)
    wait_for(lambda: engine.worker.depths()["images"] >= 3)
    model.release()
    for call in calls:
        call.result(10)
    for batch in "".join(word[0] for word in order).split("l")[1:]:
        assert batch in {"a", "aa"}


def test_a_question_that_comes_with_an_image_is_asked_before_the_next_batch(start):
    model = FakeModel()
    engine = start(model, max_batch=2)
    order, look = [], model.look
    model.look = lambda pictures: order.append("look") or look(pictures)
    model.hold()
    _, calls = in_threads([lambda: ask_about(engine, model, lambda scene: order.append("answer"))] * 5)
    wait_for(lambda: engine.worker.depths()["images"] >= 3)
    model.release()
    timings = [call.result(10)[1].timing for call in calls]
    assert all(batch in {"a", "aa"} for batch in "".join(word[0] for word in order).split("l")[1:])
    assert max(timing.batch_size for timing in timings) == 2
    assert all((t.backbone_passes, t.head_ms) == (1, 3.0) and t.classify_ms > 0 for t in timings)
    assert engine.worker.counters.questions == 5


def test_a_question_that_waits_goes_before_one_that_comes_with_an_image(start):
    model = FakeModel()
    engine = start(model)
    order = []
    model.hold()
    _, (brought,) = in_threads([lambda: ask_about(engine, model, lambda scene: order.append("brought"))])
    assert model.busy.wait(10)
    waiting = engine.worker.ask(lambda: order.append("waiting"), Terms(deadline_s=time.monotonic() + 10))
    model.release()
    brought.result(10)
    waiting.result(10)
    assert order == ["waiting", "brought"]


def test_a_question_that_fails_leaves_the_others_of_its_batch_alone(start):
    model = FakeModel()
    engine = start(model)

    def asked(scene):
        raise InvalidParameter("no such thing", field="x")

    model.hold()
    _, (first,) = in_threads([lambda: see(engine, model)])
    assert model.busy.wait(10)
    _, calls = in_threads(
        [lambda ask=ask: ask_about(engine, model, ask) for ask in (asked, lambda scene: scene.size)]
    )
    wait_for(lambda: engine.worker.depths()["images"] == 2)
    model.release()
    first.result(10)
    assert isinstance(calls[0].exception(10), InvalidParameter)
    assert calls[1].result(10)[0] == (40, 50)
    assert engine.worker.counters.out_of_memory == 0


def test_words_are_learned_before_a_question_that_came_along(start):
    model = FakeModel()
    engine = start(model)
    order = []
    model.learn = lambda words: None if order else iter(order.append(left) or left for left in (1, 0))
    assert ask_about(engine, model, lambda scene: list(order))[0] == [1, 0]


def test_callers_who_come_back_at_once_share_a_pass(start, monkeypatch):
    monkeypatch.setattr("serving.gathering._LONGEST_GATHER_S", 1.0)
    monkeypatch.setattr("serving.gathering._GATHER_SHARE", 1e6)
    model = FakeModel()
    engine = start(model)

    def ask_twice():
        return [see(engine, model).timing.batch_size for _ in range(2)]

    model.hold()
    _, (first,) = in_threads([ask_twice])
    assert model.busy.wait(10)
    _, (second,) = in_threads([ask_twice])
    wait_for(lambda: engine.worker.depths()["images"] == 1)
    model.release()
    # Without waiting it would be the first, the second, the first, the second.
    assert (first.result(10)[1], second.result(10)[0]) == (2, 2)


def test_it_does_not_wait_for_long_for_those_who_do_not_come_back(start, monkeypatch):
    monkeypatch.setattr("serving.gathering._LONGEST_GATHER_S", 0.2)
    monkeypatch.setattr("serving.gathering._GATHER_SHARE", 1e6)
    model = FakeModel()
    engine = start(model)
    for _ in range(4):
        calls, _ = queue_up(engine, model, [encoded()])
        model.release()
        for call in calls:
            call.result(10)
    assert engine.worker._turns._gathering.patience < 1


def test_new_words_let_others_pass(start):
    model = FakeModel()
    engine = start(model)
    order, go = [], threading.Event()

    def lessons(vocabulary):
        if len(vocabulary) < 2:
            return None
        return ((go.wait(10) and order.append("lesson")) or left for left in (3, 2, 1, 0))

    model.learn = lessons
    many = Vocabulary.from_words(["a", "b"])

    def learn():
        with engine.call(model, "id", 1, FakeContext()) as call:
            return call.ask(lambda: order.append("asked"), many)

    _, (slow,) = in_threads([learn])
    wait_for(lambda: engine.worker._turns._taught)
    look = model.look
    model.look = lambda pictures: order.append("look") or look(pictures)
    _, quick = in_threads([lambda: see(engine, model)] * 2)
    wait_for(lambda: engine.worker.depths()["images"] == 2)
    go.set()
    for call in (slow, *quick):
        call.result(10)
    assert order == ["lesson", "look", "lesson", "lesson", "lesson", "asked"]


def test_words_that_cannot_be_learned_fail_their_call_alone(start):
    model = FakeModel()
    engine = start(model)

    def broken(vocabulary):
        def steps():
            raise InvalidParameter("no word")
            yield 0

        return steps()

    model.learn = broken
    with pytest.raises(InvalidParameter, match="no word"):
        see(engine, model, ask=lambda scene: None)
    model.learn = lambda vocabulary: None
    assert see(engine, model)
