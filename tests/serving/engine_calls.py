"""Calls of an engine without a wire."""

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np

from ovperception.images import encode_png
from ovperception.v1.image_pb2 import Image
from ovperception.vocabulary import Vocabulary
from tests.serving.fake_context import FakeContext

PICTURE = np.full((40, 50, 3), 100, np.uint8)
WORDS = Vocabulary.from_words(["cat"])


def encoded(picture=PICTURE):
    return Image(encoded=encode_png(picture))


def see(engine, model, *, image=None, context=None, models=None, keep=False, ask=None):
    """One call; its reply's info."""
    with engine.call(model, "id", 100, context or FakeContext()) as call:
        scenes = call.see_all(image or encoded(), models or [model], keep=keep)
        if ask is not None:
            call.ask(lambda: [ask(scene) for scene in scenes], WORDS)
        return call.info()


def in_threads(calls):
    pool = ThreadPoolExecutor(len(calls))
    return pool, [pool.submit(call) for call in calls]


def wait_for(condition, timeout_s=10):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def is_idle(engine):
    return engine.admission.used == {"requests": 0, "bytes": 0, "pixels": 0}


def queue_up(engine, model, images):
    """Calls that wait behind one that holds the model."""
    model.hold()
    pool, calls = in_threads([lambda: see(engine, model)])
    assert model.busy.wait(10)
    more, waiting = in_threads([lambda image=image: see(engine, model, image=image) for image in images])
    wait_for(lambda: engine.worker.depths()["images"] == len(images))
    return calls + waiting, (pool, more)


def ask_about(engine, model, asked, *, image=None, context=None, words=WORDS):
    """One call that brings its question along."""
    with engine.call(model, "id", 100, context or FakeContext()) as call:
        question = SimpleNamespace(model=model, words=words, ask=asked, fits=lambda size: None)
        return call.ask_about(image or encoded(), [question])[0], call.info()
