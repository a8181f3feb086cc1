"""Admission, decoding, batches, sharing, cancelling: the engine without a wire."""

import gc
import random
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ovperception.errors import (
    DeadlineExceeded,
    InvalidImage,
    InvalidParameter,
    ResourceExhausted,
    Unavailable,
    UnknownImage,
)
from ovperception.images import encode_png
from ovperception.v1.image_pb2 import Image
from ovperception.v1.perceive_pb2 import DetectOutput
from ovperception.vocabulary import Vocabulary
from serving.admission import Admission
from serving.batch_caps import BatchCaps
from serving.config import ServerConfig
from serving.engine import Engine
from serving.jobs import Terms
from serving.models import ModelSet
from serving.presence import CallCancelled
from serving.questions import detection
from serving.words import AskedWords
from tests.serving.fake_context import FakeContext
from tests.serving.fake_model import POISON, FakeModel

PICTURE = np.full((40, 50, 3), 100, np.uint8)
WORDS = Vocabulary.from_words(["cat"])


def _image(picture=PICTURE):
    return Image(encoded=encode_png(picture))


@pytest.fixture
def start():
    """Start engines that end with the test: `start(*models, **config) -> engine`."""
    engines = []

    def make(*models, on_fatal=None, **config):
        engine = Engine(ModelSet(models or [FakeModel()]), ServerConfig(**config), on_fatal=on_fatal)
        engines.append((engine, models))
        return engine

    yield make
    for engine, models in engines:
        for model in models:
            model.release()
        engine.close()


def _see(engine, model, *, image=None, context=None, models=None, keep=False, ask=None):
    """One call; its reply's info."""
    with engine.call(model, "id", 100, context or FakeContext()) as call:
        scenes = call.see_all(image or _image(), models or [model], keep=keep)
        if ask is not None:
            call.ask(lambda: [ask(scene) for scene in scenes], WORDS)
        return call.info()


def _in_threads(calls):
    pool = ThreadPoolExecutor(len(calls))
    return pool, [pool.submit(call) for call in calls]


def _wait_for(condition, timeout_s=10):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def _idle(engine):
    return engine.admission.used == {"requests": 0, "bytes": 0, "pixels": 0}


def test_too_large_is_refused_by_its_header(start, monkeypatch):
    engine = start(max_pixels=1000)
    monkeypatch.setattr("serving.pictures.load_image", lambda *a, **k: pytest.fail("decoded"))
    with pytest.raises(InvalidImage, match="too large"):
        _see(engine, engine.models.get(""))
    assert _idle(engine)


@pytest.mark.parametrize("at_once", [0, 10**6])
def test_few_pictures_are_in_the_making_at_a_time(start, monkeypatch, at_once):
    monkeypatch.setattr("serving.decoding._MOST_PIXELS_AT_ONCE", at_once)
    model = FakeModel()
    engine = start(model, decode_threads=2)
    inside, most, names, prepare = set(), [0], set(), model.prepare

    def slowly(image):
        me = threading.current_thread().name
        names.add(me)
        inside.add(me)
        most[0] = max(most[0], len(inside))
        time.sleep(0.005)
        inside.remove(me)
        return prepare(image)

    model.prepare = slowly
    pool, calls = _in_threads([lambda: _see(engine, model)] * 8)
    assert all(call.result(10).image.width == 50 for call in calls)
    pool.shutdown()
    assert most[0] <= 2
    own = {"ovperception-decode-0", "ovperception-decode-1"}
    assert bool(names - own) == (at_once > 0)  # a call decodes a small picture itself
    assert engine.decoders._busy == 0


def test_a_corrupt_picture_names_its_field(start):
    good = encode_png(PICTURE)
    engine = start()
    with pytest.raises(InvalidImage) as caught:
        _see(engine, engine.models.get(""), image=Image(encoded=good[:40] + b"?" + good[41:]))
    assert caught.value.field == "image.encoded"
    assert _idle(engine)


def _queue_up(engine, model, images):
    """Calls that wait behind one that holds the model."""
    model.hold()
    pool, calls = _in_threads([lambda: _see(engine, model)])
    assert model.busy.wait(10)
    more, waiting = _in_threads([lambda image=image: _see(engine, model, image=image) for image in images])
    _wait_for(lambda: engine.worker.depths()["images"] == len(images))
    return calls + waiting, (pool, more)


def test_a_batch_is_of_one_size_and_within_its_pixels(start):
    model = FakeModel()
    engine = start(model, max_batch=8, max_batch_pixels=3 * 64 * 64)
    small, large = np.zeros((64, 64, 3), np.uint8), np.zeros((128, 128, 3), np.uint8)
    calls, _ = _queue_up(engine, model, [_image(small)] * 7 + [_image(large)] * 2)
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
    calls, _ = _queue_up(engine, model, [_image(poison) if i == 3 else _image() for i in range(7)])
    model.release()
    failed = [type(call.exception(10)) for call in calls]
    assert failed.count(InvalidImage) == 1
    assert failed.count(type(None)) == 7


def test_models_on_one_backbone_share_its_pass(start):
    first, second = FakeModel("a", backbone="x"), FakeModel("b", backbone="x")
    engine = start(first, second)
    assert second.lender is first
    calls, _ = _queue_up(engine, first, [_image()] * 3)
    _, others = _in_threads([lambda: _see(engine, second)] * 3)
    _wait_for(lambda: engine.worker.depths()["images"] == 6)
    first.release()
    infos = [call.result(10) for call in calls[1:] + others]
    assert {info.timing.batch_size for info in infos} == {6}
    assert (first.seen, second.seen) == (4, 3)
    assert engine.worker.counters.passes == 2


def test_one_call_asks_several_models_in_one_pass(start):
    first, second = FakeModel("a", backbone="x"), FakeModel("b", backbone="x")
    third = FakeModel("c")
    engine = start(first, second, third)
    info = _see(engine, first, models=[first, second], ask=lambda scene: scene.detect(WORDS))
    assert (info.timing.backbone_passes, info.timing.batch_size) == (1, 1)
    info = _see(engine, first, models=[second, third, first])
    assert info.timing.backbone_passes == 2
    assert (len(first.batches) + len(second.batches), len(third.batches)) == (2, 1)


def test_a_kept_image_is_asked_by_another_model_of_its_backbone(start):
    first, second, third = FakeModel("a", backbone="x"), FakeModel("b", backbone="x"), FakeModel("c")
    engine = start(first, second, third)
    kept = _see(engine, first, keep=True).image.image_id
    for _ in range(2):
        info = _see(engine, second, image=Image(image_id=kept), ask=lambda scene: scene.detect(WORDS))
        assert (info.timing.backbone_passes, info.timing.batch_size) == (0, 0)
    assert (first.seen, second.seen) == (1, 1)  # asked twice, seen once
    assert engine.kept.nbytes == 3000  # a look and two scenes
    with pytest.raises(InvalidParameter, match="another model"):
        _see(engine, third, image=Image(image_id=kept))
    assert engine.unload("b") == 0
    assert engine.kept.nbytes == 2000
    assert engine.unload("a") == 1
    assert engine.kept.nbytes == 0


def test_a_kept_image_is_its_clients_own(start):
    engine = start()
    model = engine.models.get("")
    kept = _see(engine, model, keep=True, context=FakeContext(machine="10.0.0.1")).image.image_id
    other = FakeContext(machine="10.0.0.2")
    with pytest.raises(UnknownImage):
        _see(engine, model, image=Image(image_id=kept), context=other)
    assert not engine.forget(kept, other)
    assert engine.forget(kept, FakeContext(machine="10.0.0.1"))


def test_a_client_cannot_hold_everything(start):
    model = FakeModel()
    engine = start(model, max_requests=8)
    model.hold()
    calls = [lambda: _see(engine, model, context=FakeContext(machine="greedy"))] * 9
    _, greedy = _in_threads(calls)
    _wait_for(lambda: engine.admission.used["requests"] == 6 and sum(c.done() for c in greedy) == 3)
    _, (modest,) = _in_threads([lambda: _see(engine, model, context=FakeContext(machine="modest"))])
    _wait_for(lambda: engine.admission.used["requests"] == 7)
    model.release()
    assert modest.result(10)
    errors = [call.exception(10) for call in greedy]
    refused = [error for error in errors if error is not None]
    assert len(refused) == 3
    assert all("You have too many" in error.what and error.retry_after_ms >= 10 for error in refused)
    assert _idle(engine)


def test_an_interactive_call_goes_before_bulk(start):
    model = FakeModel()
    engine = start(model, max_batch=1)
    order = []

    def call(name, priority):
        _see(engine, model, context=FakeContext(machine=name, priority=priority))
        order.append(priority)

    model.hold()
    _, (first,) = _in_threads([lambda: _see(engine, model)])
    assert model.busy.wait(10)
    _, bulk = _in_threads([lambda i=i: call(f"bulk{i}", "bulk") for i in range(6)])
    _wait_for(lambda: engine.worker.depths()["images"] == 6)
    _, human = _in_threads([lambda: call("human", "interactive")])
    _wait_for(lambda: engine.worker.depths()["images"] == 7)
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
    _, calls = _in_threads([lambda: _see(engine, model, ask=lambda scene: order.append("answer"))] * 5)
    _wait_for(lambda: engine.worker.depths()["images"] >= 3)
    model.release()
    for call in calls:
        call.result(10)
    for batch in "".join(word[0] for word in order).split("l")[1:]:
        assert batch in {"a", "aa"}


def _ask_about(engine, model, asked, *, image=None, context=None, words=WORDS):
    """One call that brings its question along."""
    with engine.call(model, "id", 100, context or FakeContext()) as call:
        question = SimpleNamespace(model=model, words=words, ask=asked)
        return call.ask_about(image or _image(), [question])[0], call.info()


def test_a_question_that_comes_with_an_image_is_asked_before_the_next_batch(start):
    model = FakeModel()
    engine = start(model, max_batch=2)
    order, look = [], model.look
    model.look = lambda pictures: order.append("look") or look(pictures)
    model.hold()
    _, calls = _in_threads([lambda: _ask_about(engine, model, lambda scene: order.append("answer"))] * 5)
    _wait_for(lambda: engine.worker.depths()["images"] >= 3)
    model.release()
    timings = [call.result(10)[1].timing for call in calls]
    assert all(batch in {"a", "aa"} for batch in "".join(word[0] for word in order).split("l")[1:])
    assert max(timing.batch_size for timing in timings) == 2
    assert all((t.backbone_passes, t.head_ms) == (1, 3.0) and t.classify_ms > 0 for t in timings)
    assert engine.worker.counters.questions == 5


def test_a_question_that_fails_leaves_the_others_of_its_batch_alone(start):
    model = FakeModel()
    engine = start(model)

    def asked(scene):
        raise InvalidParameter("no such thing", field="x")

    model.hold()
    _, (first,) = _in_threads([lambda: _see(engine, model)])
    assert model.busy.wait(10)
    _, calls = _in_threads(
        [lambda ask=ask: _ask_about(engine, model, ask) for ask in (asked, lambda scene: scene.size)]
    )
    _wait_for(lambda: engine.worker.depths()["images"] == 2)
    model.release()
    first.result(10)
    assert isinstance(calls[0].exception(10), InvalidParameter)
    assert calls[1].result(10)[0] == (40, 50)
    assert engine.worker.counters.out_of_memory == 0


def test_who_leaves_while_looked_at_is_not_asked_for(start):
    model = FakeModel()
    engine = start(model)
    asked, context = [], FakeContext()
    model.hold()
    _, (call,) = _in_threads([lambda: _ask_about(engine, model, asked.append, context=context)])
    assert model.busy.wait(10)
    context.leave()
    assert isinstance(call.exception(5), CallCancelled)
    model.release()
    assert _ask_about(engine, model, lambda scene: scene.size)[0] == (40, 50)
    assert not asked
    assert _idle(engine)
    assert engine.worker.depths() == {"images": 0, "questions": 0, "words": 0}


def test_words_are_learned_before_a_question_that_came_along(start):
    model = FakeModel()
    engine = start(model)
    order = []
    model.learn = lambda words: None if order else iter(order.append(left) or left for left in (1, 0))
    assert _ask_about(engine, model, lambda scene: list(order))[0] == [1, 0]


def test_callers_who_come_back_at_once_share_a_pass(start, monkeypatch):
    monkeypatch.setattr("serving.gathering._LONGEST_GATHER_S", 1.0)
    monkeypatch.setattr("serving.gathering._GATHER_SHARE", 1e6)
    model = FakeModel()
    engine = start(model)

    def ask_twice():
        return [_see(engine, model).timing.batch_size for _ in range(2)]

    model.hold()
    _, (first,) = _in_threads([ask_twice])
    assert model.busy.wait(10)
    _, (second,) = _in_threads([ask_twice])
    _wait_for(lambda: engine.worker.depths()["images"] == 1)
    model.release()
    # Without waiting it would be the first, the second, the first, the second.
    assert (first.result(10)[1], second.result(10)[0]) == (2, 2)


def test_it_does_not_wait_for_long_for_those_who_do_not_come_back(start, monkeypatch):
    monkeypatch.setattr("serving.gathering._LONGEST_GATHER_S", 0.2)
    monkeypatch.setattr("serving.gathering._GATHER_SHARE", 1e6)
    model = FakeModel()
    engine = start(model)
    for _ in range(4):
        calls, _ = _queue_up(engine, model, [_image()])
        model.release()
        for call in calls:
            call.result(10)
    assert engine.worker._turns._gathering.patience < 1


def test_an_unknown_priority_is_refused(start):
    engine = start()
    with pytest.raises(InvalidParameter) as caught:
        _see(engine, engine.models.get(""), context=FakeContext(priority="urgent"))
    assert caught.value.field == "ovp-priority"


@pytest.mark.parametrize(("most_s", "kind"), [(30.0, DeadlineExceeded), (1.0, ResourceExhausted)])
def test_who_would_wait_too_long_is_refused_before_decoding(start, monkeypatch, most_s, kind):
    """Longer than it has: its deadline has passed, as good as. Longer than anybody may: come again."""
    model = FakeModel()
    engine = start(model, max_queue_s=most_s)
    _see(engine, model)
    monkeypatch.setattr(engine.worker, "wait_s", lambda terms, *, pixels: 3.0)
    monkeypatch.setattr("serving.pictures.load_image", lambda *a, **k: pytest.fail("decoded"))
    with pytest.raises(kind, match="The server is busy") as caught:
        _see(engine, model, context=FakeContext(2.0))
    if kind is ResourceExhausted:
        assert 1000 < caught.value.retry_after_ms < 3000  # about the 2 s that are too many
        assert engine.admission.refused == {"wait": 1}
    else:
        assert engine.admission.refused == {"deadline": 1}
    assert _idle(engine)


def test_questions_are_part_of_the_wait(start):
    model = FakeModel()
    engine = start(model)
    terms = Terms(deadline_s=time.monotonic() + 20)
    engine.worker.ask(lambda: time.sleep(0.02), terms).result(10)
    go = threading.Event()
    engine.worker.ask(lambda: go.wait(10), terms)
    _wait_for(lambda: not engine.worker.depths()["questions"])
    before_s = engine.worker.wait_s(terms, pixels=64 * 64)
    waiting = [engine.worker.ask(time.monotonic, terms) for _ in range(10)]
    more_s = engine.worker.wait_s(terms, pixels=64 * 64) - before_s
    assert more_s >= 10 * 0.02
    go.set()
    for future in waiting:
        future.result(10)


def test_the_wait_is_measured(start):
    model = FakeModel()
    engine = start(model, max_batch=1)
    look = model.look
    model.look = lambda pictures: time.sleep(0.05) or look(pictures)
    _see(engine, model)
    calls, _ = _queue_up(engine, model, [_image()] * 5)
    begun = time.monotonic()
    with engine.call(model, "id", 1, FakeContext()) as call:
        expected_s = engine.worker.wait_s(call._terms, pixels=64 * 64)
        model.release()
        call.see(_image())
    assert 0.1 < expected_s < 1.0
    assert time.monotonic() - begun > 0.5 * expected_s
    for some in calls:
        some.result(10)


def test_a_deadline_is_looked_at_before_every_stage(start):
    model = FakeModel()
    engine = start(model)
    with engine.call(model, "id", 1, FakeContext(0.05)) as call:
        scene = call.see(_image())
        time.sleep(0.06)
        for stage in (
            lambda: call.see(_image()),
            lambda: call.decode(_image()),
            lambda: call.ask(lambda: scene.detect(WORDS)),
            lambda: call.encoding().__enter__(),
        ):
            with pytest.raises(DeadlineExceeded):
                stage()
    assert len(model.batches) == 1


def test_who_leaves_while_the_model_works_is_out_at_once(start):
    model = FakeModel()
    engine = start(model)
    model.hold()
    context = FakeContext()
    _, (call,) = _in_threads([lambda: _see(engine, model, context=context)])
    assert model.busy.wait(10)
    context.leave()
    assert isinstance(call.exception(5), CallCancelled)
    assert _idle(engine)  # though the model still holds the image
    model.release()
    assert _see(engine, model)


def test_who_leaves_the_decoders_queue_is_taken_out(start, monkeypatch):
    monkeypatch.setattr("serving.decoding._MOST_PIXELS_AT_ONCE", 0)
    model = FakeModel()
    engine = start(model, decode_threads=1)
    go, prepare = threading.Event(), model.prepare
    model.prepare = lambda image: go.wait(10) and prepare(image)
    contexts = [FakeContext() for _ in range(5)]
    _, calls = _in_threads([lambda c=c: _see(engine, model, context=c) for c in contexts])
    _wait_for(lambda: len(engine.decoders._queue) == 4)
    for context in contexts:
        context.leave()
    assert all(isinstance(call.exception(5), CallCancelled) for call in calls)
    assert not engine.decoders._queue
    assert _idle(engine)
    go.set()
    assert _see(engine, model)


def test_thousands_who_leave_at_any_time_take_nothing_along(start):
    model = FakeModel()
    engine = start(model, max_requests=16, decode_threads=2)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    jpeg = Image(encoded=cv2.imencode(".jpg", noise)[1].tobytes())
    rng = random.Random(4)
    outcomes = {"done": 0, "left": 0, "refused": 0}
    lock, later = threading.Lock(), []

    def one(delay_s, keep):
        context = FakeContext(5.0, machine=f"10.0.0.{rng.randrange(6)}")
        if delay_s == 0:
            context.leave()
        elif delay_s < 0.004:
            with lock:
                later.append((time.monotonic() + delay_s, context))
        try:
            if keep:
                _see(engine, model, image=jpeg, context=context, keep=True, ask=lambda s: s.detect(WORDS))
            else:
                _ask_about(engine, model, lambda scene: scene.detect(WORDS), image=jpeg, context=context)
            outcome = "done"
        except CallCancelled:
            outcome = "left"
        except ResourceExhausted:
            outcome = "refused"
            time.sleep(0.002)  # or it would be refused again and again while the others work
        with lock:
            outcomes[outcome] += 1

    def leave():
        while not ended.is_set():
            with lock:
                now = time.monotonic()
                due = [context for at, context in later if at <= now]
                later[:] = [pair for pair in later if pair[0] > now]
            for context in due:
                context.leave()
            time.sleep(0.0005)

    ended = threading.Event()
    leaver = threading.Thread(target=leave)
    leaver.start()
    delays = [rng.choice((0, rng.random() * 0.004, 1)) for _ in range(3000)]
    with ThreadPoolExecutor(17) as pool:
        list(pool.map(one, delays, [rng.random() < 0.2 for _ in delays]))
    ended.set()
    leaver.join()
    assert sum(outcomes.values()) == 3000
    assert min(outcomes["left"], outcomes["done"]) > 300
    assert _idle(engine)
    assert engine.worker.depths() == {"images": 0, "questions": 0, "words": 0}
    assert not engine.decoders._queue
    assert not engine.admission._clients
    assert engine.kept.nbytes == 1000 * len(engine.kept)
    assert _see(engine, model)


@pytest.mark.parametrize("at_once", [0, 10**6])
def test_a_picture_is_let_go_with_its_call(start, monkeypatch, at_once):
    monkeypatch.setattr("serving.decoding._MOST_PIXELS_AT_ONCE", at_once)
    model = FakeModel()
    engine = start(model)
    pictures, prepare = [], model.prepare

    def prepared(image):
        ready = prepare(image)
        pictures.append(weakref.ref(ready))
        return ready

    model.prepare = prepared
    gc.disable()  # a cycle would keep them until the collector comes
    try:
        _ask_about(engine, model, lambda scene: scene.size)
        _see(engine, model, ask=lambda scene: scene.size)
        _wait_for(lambda: [picture() for picture in pictures] == [None, None])
    finally:
        gc.enable()


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

    _, (slow,) = _in_threads([learn])
    _wait_for(lambda: engine.worker._turns._taught)
    look = model.look
    model.look = lambda pictures: order.append("look") or look(pictures)
    _, quick = _in_threads([lambda: _see(engine, model)] * 2)
    _wait_for(lambda: engine.worker.depths()["images"] == 2)
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
        _see(engine, model, ask=lambda scene: None)
    model.learn = lambda vocabulary: None
    assert _see(engine, model)


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def _out_of_memory(*_):
    raise OutOfMemoryError("CUDA out of memory")


def test_a_batch_without_memory_is_tried_in_halves(start):
    model = FakeModel()
    engine = start(model)
    look = model.look
    model.look = lambda pictures: _out_of_memory() if len(pictures) > 2 else look(pictures)
    calls, _ = _queue_up(engine, model, [_image()] * 8)
    model.release()
    assert [call.result(10).timing.batch_size for call in calls] == [1, *[2] * 8]


def test_a_batch_without_memory_is_not_tried_again(start):
    model = FakeModel()
    engine = start(model)
    look, sizes = model.look, []

    def small_only(pictures):
        sizes.append(len(pictures))
        return _out_of_memory() if len(pictures) > 2 else look(pictures)

    model.look = small_only
    for _ in range(2):
        calls, _ = _queue_up(engine, model, [_image()] * 8)
        model.release()
        for call in calls:
            call.result(10)
    other = np.zeros((100, 100, 3), np.uint8)  # its size has not failed yet
    calls, _ = _queue_up(engine, model, [_image(other)] * 3)
    model.release()
    for call in calls:
        call.result(10)
    first, rest = sizes[: sizes.index(2) + 4], sizes[sizes.index(2) + 4 :]
    assert first == [1, 8, 4, 2, 2, 4, 2, 2][: len(first)]
    assert rest.count(3) == 1
    assert max(size for size in rest if size != 3) <= 4
    assert engine.worker.counters.out_of_memory == 4  # 8, 4, 4, and the 3 of the other size


def test_the_largest_batch_is_found_again():
    caps = BatchCaps()
    assert caps.limit("small", 8) == 8
    caps.failed("large", 8)
    caps.failed("large", 4)
    assert (caps.limit("large", 8), caps.limit("small", 8)) == (2, 8)
    for _ in range(199):
        caps.went_well("large", 2)
    caps.went_well("large", 1)  # says nothing of two
    assert caps.limit("large", 8) == 2
    caps.went_well("large", 2)
    assert caps.limit("large", 8) == 3
    caps.failed("large", 1)
    assert caps.limit("large", 8) == 1
    for number in range(300):
        caps.failed(number, 8)
    assert caps.limit("large", 8) == 8  # forgotten: clients choose the sizes
    assert caps.limit(299, 8) == 4


def test_images_too_large_for_the_device_do_not_end_the_server(start):
    model = FakeModel()
    lost = []
    engine = start(model, on_fatal=lost.append)
    look = model.look
    model.look = lambda pictures: look(pictures) if pictures[0].image.shape[0] > 50 else _out_of_memory()
    for _ in range(10):
        with pytest.raises(ResourceExhausted, match="out of memory"):
            _see(engine, model)
    assert engine.worker.counters.out_of_memory == 10
    assert not lost


@pytest.mark.parametrize("broken", [_out_of_memory, None])
def test_a_lost_device_ends_the_server(start, broken):
    model = FakeModel()
    lost = []
    engine = start(model, on_fatal=lost.append)

    def illegal(pictures):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    model.look = broken or illegal
    for _ in range(4 if broken else 1):
        with pytest.raises(ResourceExhausted if broken else Unavailable):
            _see(engine, model)
    _wait_for(lambda: len(lost) == 1)
    with pytest.raises(Unavailable, match="lost its device"):
        _see(engine, model)
    assert len(lost) == 1


def test_an_ordinary_error_ends_nothing(start):
    model = FakeModel()
    lost = []
    engine = start(model, on_fatal=lost.append)
    look, model.look = model.look, lambda pictures: 1 / 0
    with pytest.raises(ZeroDivisionError):
        _see(engine, model)
    model.look = look
    assert _see(engine, model)
    assert not lost


def test_advice_grows_with_the_backlog():
    patient = Admission(max_requests=1, max_bytes=10, max_pixels=1, backlog_s=lambda: 4.0)
    with patient.enter(1), pytest.raises(ResourceExhausted) as caught, patient.enter(1):
        pass
    assert 1400 < caught.value.retry_after_ms < 2600
    assert patient.refused == {"requests": 1}


def test_models_come_and_go():
    first, second = FakeModel("a", backbone="x"), FakeModel("b", backbone="y")
    models = ModelSet([first, second])
    newer = FakeModel("a", backbone="y")
    assert models.put(newer) is first
    assert newer.lender is second
    assert models.get("") is newer
    assert models.info(first).name == "a"
    assert models.remove("b") is second
    with pytest.raises(InvalidParameter, match="last model"):
        models.remove("a")


def test_masks_are_written_on_another_thread_than_the_model_s(start):
    threads = []

    class Scene:
        size, nbytes, timing = (40, 50), 1000, {}

        def draft_detections(self, words, **options):
            threads.append(threading.current_thread().name)
            return self.finish

        def finish(self):
            threads.append(threading.current_thread().name)
            return FakeModel().encode(PICTURE).detect(WORDS)

    engine = start(model := FakeModel())
    question = detection(model, AskedWords(vocabulary=WORDS), DetectOutput(), 10)
    with engine.call(model, "id", 100, FakeContext()) as call:
        answer, _ = question.answer(call, Scene())
        assert call.info().timing.postprocess_ms > 0
    assert len(answer.objects.detections) == 1
    assert threads == ["ovperception-model", threading.current_thread().name]
