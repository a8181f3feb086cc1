"""What runs on which thread."""

import threading
import time

import pytest

from ovperception.errors import (
    InvalidImage,
)
from ovperception.images import encode_png
from ovperception.v1.image_pb2 import Image
from ovperception.v1.perceive_pb2 import DetectOutput
from serving.questions import detection
from serving.words import AskedWords
from tests.serving.engine_calls import PICTURE, WORDS, in_threads, is_idle, see
from tests.serving.fake_context import FakeContext
from tests.serving.fake_model import FakeModel


@pytest.mark.parametrize("at_once", [0, 10**6])
def test_few_pictures_are_in_the_making_at_a_time(start, monkeypatch, at_once):
    monkeypatch.setattr("serving.decoding._MOST_PIXELS_AT_ONCE", at_once)
    model = FakeModel()
    engine = start(model, decode_threads=2)
    inside, most, names, prepare = set(), [0], set(), model.prepare

    def slowly(image, **size):
        me = threading.current_thread().name
        names.add(me)
        inside.add(me)
        most[0] = max(most[0], len(inside))
        time.sleep(0.005)
        inside.remove(me)
        return prepare(image, **size)

    model.prepare = slowly
    pool, calls = in_threads([lambda: see(engine, model)] * 8)
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
        see(engine, engine.models.get(""), image=Image(encoded=good[:40] + b"?" + good[41:]))
    assert caught.value.field == "image.encoded"
    assert is_idle(engine)


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
