"""Who is refused, and how long the others would wait."""

import threading
import time

import grpc
import numpy as np
import pytest

from ovperception.errors import (
    DeadlineExceeded,
    InvalidImage,
    InvalidParameter,
    ResourceExhausted,
)
from ovperception.images import encode_png
from ovperception.v1.image_pb2 import Image
from ovperception.v1.perception_service_pb2 import DetectObjectsRequest
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary as WordList
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from serving.admission import Admission
from serving.jobs import Terms
from tests.serving.engine_calls import encoded, in_threads, is_idle, queue_up, see, wait_for
from tests.serving.fake_context import FakeContext
from tests.serving.fake_model import FakeModel


def test_too_large_is_refused_by_its_header(start, monkeypatch):
    engine = start(max_pixels=1000)
    monkeypatch.setattr("serving.pictures.load_reduced", lambda *a, **k: pytest.fail("decoded"))
    with pytest.raises(InvalidImage, match="too large"):
        see(engine, engine.models.get(""))
    assert is_idle(engine)


def test_a_client_cannot_hold_everything(start):
    model = FakeModel()
    engine = start(model, max_requests=8)
    model.hold()
    calls = [lambda: see(engine, model, context=FakeContext(machine="greedy"))] * 9
    _, greedy = in_threads(calls)
    wait_for(lambda: engine.admission.used["requests"] == 6 and sum(c.done() for c in greedy) == 3)
    _, (modest,) = in_threads([lambda: see(engine, model, context=FakeContext(machine="modest"))])
    wait_for(lambda: engine.admission.used["requests"] == 7)
    model.release()
    assert modest.result(10)
    errors = [call.exception(10) for call in greedy]
    refused = [error for error in errors if error is not None]
    assert len(refused) == 3
    assert all("You have too many" in error.what and error.retry_after_ms >= 10 for error in refused)
    assert is_idle(engine)


def test_an_unknown_priority_is_refused(start):
    engine = start()
    with pytest.raises(InvalidParameter) as caught:
        see(engine, engine.models.get(""), context=FakeContext(priority="urgent"))
    assert caught.value.field == "ovp-priority"


@pytest.mark.parametrize(("most_s", "kind"), [(30.0, DeadlineExceeded), (1.0, ResourceExhausted)])
def test_who_would_wait_too_long_is_refused_before_decoding(start, monkeypatch, most_s, kind):
    """Longer than it has: its deadline has passed, as good as. Longer than anybody may: come again."""
    model = FakeModel()
    engine = start(model, max_queue_s=most_s)
    see(engine, model)
    monkeypatch.setattr(engine.worker, "wait_s", lambda terms, *, pixels: 3.0)
    monkeypatch.setattr("serving.pictures.load_reduced", lambda *a, **k: pytest.fail("decoded"))
    with pytest.raises(kind, match="The server is busy") as caught:
        see(engine, model, context=FakeContext(2.0))
    if kind is ResourceExhausted:
        assert 1000 < caught.value.retry_after_ms < 3000  # about the 2 s that are too many
        assert engine.admission.refused == {"wait": 1}
    else:
        assert engine.admission.refused == {"deadline": 1}
    assert is_idle(engine)


def test_questions_are_part_of_the_wait(start):
    model = FakeModel()
    engine = start(model)
    terms = Terms(deadline_s=time.monotonic() + 20)
    engine.worker.ask(lambda: time.sleep(0.02), terms).result(10)
    go = threading.Event()
    engine.worker.ask(lambda: go.wait(10), terms)
    wait_for(lambda: not engine.worker.depths()["questions"])
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
    see(engine, model)
    calls, _ = queue_up(engine, model, [encoded()] * 5)
    begun = time.monotonic()
    with engine.call(model, "id", 1, FakeContext()) as call:
        expected_s = engine.worker.wait_s(call._terms, pixels=64 * 64)
        model.release()
        call.see(encoded())
    assert 0.1 < expected_s < 1.0
    assert time.monotonic() - begun > 0.5 * expected_s
    for some in calls:
        some.result(10)


def test_advice_grows_with_the_backlog():
    patient = Admission(max_requests=1, max_bytes=10, max_pixels=1, backlog_s=lambda: 4.0)
    with patient.enter(1), pytest.raises(ResourceExhausted) as caught, patient.enter(1):
        pass
    assert 1400 < caught.value.retry_after_ms < 2600
    assert patient.refused == {"requests": 1}


def test_a_call_takes_room_for_the_bytes_that_came(serve, model):
    server = serve(model)
    picture = encode_png(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))
    words = VocabularySpec(inline=WordList(classes=[{"name": "cat"}]))
    request = DetectObjectsRequest(image=Image(encoded=picture), vocabulary=words)
    model.hold()
    with grpc.insecure_channel(server.address) as channel:
        call = PerceptionServiceStub(channel).DetectObjects.future(request)
        wait_for(lambda: server.engine.admission.used["requests"] == 1)
        assert server.engine.admission.used["bytes"] == request.ByteSize() > 6000
        model.release()
        assert call.result(20)
    wait_for(lambda: is_idle(server.engine))


def test_a_batch_that_ended_sooner_than_thought_keeps_nobody_out(start):
    model = FakeModel()
    engine = start(model)
    engine.worker._turns._pace.s_per_unit = 1000.0  # as after a pass while the machine stood still
    see(engine, model)
    terms = Terms(deadline_s=time.monotonic() + 20)
    wait_for(lambda: engine.worker.wait_s(terms, pixels=1) == 0)
    assert see(engine, model)
