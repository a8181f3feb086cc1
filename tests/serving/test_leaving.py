"""Callers who leave or run out of time, at every stage."""

import gc
import random
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from ovperception.errors import (
    DeadlineExceeded,
    ResourceExhausted,
)
from ovperception.v1.image_pb2 import Image
from serving.presence import CallCancelled
from tests.serving.engine_calls import WORDS, ask_about, encoded, in_threads, is_idle, see, wait_for
from tests.serving.fake_context import FakeContext
from tests.serving.fake_model import FakeModel


def test_who_leaves_while_looked_at_is_not_asked_for(start):
    model = FakeModel()
    engine = start(model)
    asked, context = [], FakeContext()
    model.hold()
    _, (call,) = in_threads([lambda: ask_about(engine, model, asked.append, context=context)])
    assert model.busy.wait(10)
    context.leave()
    assert isinstance(call.exception(5), CallCancelled)
    model.release()
    assert ask_about(engine, model, lambda scene: scene.size)[0] == (40, 50)
    assert not asked
    assert is_idle(engine)
    assert engine.worker.depths() == {"images": 0, "questions": 0, "words": 0}


def test_a_deadline_is_looked_at_before_every_stage(start):
    model = FakeModel()
    engine = start(model)
    with engine.call(model, "id", 1, FakeContext(0.05)) as call:
        scene = call.see(encoded())
        time.sleep(0.06)
        for stage in (
            lambda: call.see(encoded()),
            lambda: call.decode(encoded()),
            lambda: call.ask(lambda: scene.detect(WORDS)),
            lambda: call.encode(lambda: None),
        ):
            with pytest.raises(DeadlineExceeded):
                stage()
    assert len(model.batches) == 1


def test_who_leaves_while_the_model_works_is_out_at_once(start):
    model = FakeModel()
    engine = start(model)
    model.hold()
    context = FakeContext()
    _, (call,) = in_threads([lambda: see(engine, model, context=context)])
    assert model.busy.wait(10)
    context.leave()
    assert isinstance(call.exception(5), CallCancelled)
    assert is_idle(engine)  # though the model still holds the image
    model.release()
    assert see(engine, model)


def test_who_leaves_the_decoders_queue_is_taken_out(start, monkeypatch):
    monkeypatch.setattr("serving.decoding._MOST_PIXELS_AT_ONCE", 0)
    model = FakeModel()
    engine = start(model, decode_threads=1)
    go, prepare = threading.Event(), model.prepare
    model.prepare = lambda image, **size: go.wait(10) and prepare(image, **size)
    contexts = [FakeContext() for _ in range(5)]
    _, calls = in_threads([lambda c=c: see(engine, model, context=c) for c in contexts])
    wait_for(lambda: len(engine.decoders._queue) == 4)
    for context in contexts:
        context.leave()
    assert all(isinstance(call.exception(5), CallCancelled) for call in calls)
    assert not engine.decoders._queue
    assert is_idle(engine)
    go.set()
    assert see(engine, model)


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
                see(engine, model, image=jpeg, context=context, keep=True, ask=lambda s: s.detect(WORDS))
            else:
                ask_about(engine, model, lambda scene: scene.detect(WORDS), image=jpeg, context=context)
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
    assert is_idle(engine)
    assert engine.worker.depths() == {"images": 0, "questions": 0, "words": 0}
    assert not engine.decoders._queue
    assert not engine.admission._clients
    assert engine.kept.nbytes == 1000 * len(engine.kept)
    assert see(engine, model)


@pytest.mark.parametrize("at_once", [0, 10**6])
def test_a_picture_is_let_go_with_its_call(start, monkeypatch, at_once):
    monkeypatch.setattr("serving.decoding._MOST_PIXELS_AT_ONCE", at_once)
    model = FakeModel()
    engine = start(model)
    pictures, prepare = [], model.prepare

    def prepared(image, **size):
        ready = prepare(image, **size)
        pictures.append(weakref.ref(ready))
        return ready

    model.prepare = prepared
    gc.disable()  # a cycle would keep them until the collector comes
    try:
        ask_about(engine, model, lambda scene: scene.size)
        see(engine, model, ask=lambda scene: scene.size)
        wait_for(lambda: not any(picture() for picture in pictures))
    finally:
        gc.enable()
    assert len(pictures) == 2
