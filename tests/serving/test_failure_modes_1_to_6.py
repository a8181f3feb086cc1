"""Ways in which other servers of models have failed, tried on this one: callers who leave or pile up."""

import gc
import itertools
import logging
import os
import random
import threading
import time
import tracemalloc
import weakref

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from ovperception.client import Client
from ovperception.v1.model_admin_service_pb2 import LoadModelRequest, UnloadModelRequest
from ovperception.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from ovperception.v1.perception_service_pb2 import EncodeImageRequest
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from serving import Server, ServerConfig, questions
from serving.presence import Presence
from tests.serving.failure_calls import (
    IDLE,
    PICTURE,
    PNG,
    detect_request,
    health,
    stream_of,
    stub_of,
    wait_for,
)
from tests.serving.fake_model import FakeModel


@pytest.mark.parametrize("stage", ["decode", "queue", "model", "look", "ask", "encode"])
def test_1_a_caller_leaves_at_each_stage(serve, connect, monkeypatch, stage):
    model = FakeModel()
    server = serve(model, max_client_requests=64)
    reached, go, left = threading.Event(), threading.Event(), threading.Event()
    leave = Presence._leave
    monkeypatch.setattr(Presence, "_leave", lambda presence: (leave(presence), left.set()))

    def halt(original):
        def halted(*rest, **options):
            reached.set()
            assert go.wait(20)
            return original(*rest, **options)

        return halted

    if stage == "decode":
        model.prepare = halt(model.prepare)
    elif stage == "ask":
        model.scenes = halt(model.scenes)
    elif stage == "encode":
        monkeypatch.setattr(questions, "detections_message", halt(questions.detections_message))
    else:
        model.hold()
    if stage == "look":  # nothing is asked: the pass itself ends the wait
        call = stub_of(server).EncodeImage.future(EncodeImageRequest(image=detect_request().image))
    else:
        call = stub_of(server).DetectObjects.future(detect_request())
    if stage in {"decode", "ask", "encode"}:
        assert reached.wait(10)
    else:
        assert model.busy.wait(10)
    if stage == "queue":
        waiting = stub_of(server).DetectObjects.future(detect_request())
        wait_for(lambda: server.engine.worker.depths()["images"] == 1)
        waiting.cancel()
    call.cancel()
    assert left.wait(10)  # or the stage would be over before the server knows
    if stage not in {"decode", "encode"}:  # in which the call's own thread works
        wait_for(lambda: server.engine.admission.used == IDLE)
    go.set()
    model.release()
    wait_for(lambda: server.engine.admission.used == IDLE)
    assert len(connect(server).detect(PICTURE, ["cat"])) == 1
    assert connect(server).encode(PICTURE)


def _storm(server, count):
    """Calls that are cancelled at random moments; none of them may hold anything afterwards."""
    stubs = [stub_of(server, number) for number in range(4)]
    rng = random.Random(1)
    open_calls = []
    for turn in range(count):
        open_calls.append(stubs[turn % 4].DetectObjects.future(detect_request()))
        if len(open_calls) > 32:
            open_calls.pop(rng.randrange(len(open_calls))).cancel()
        if not turn % 97:
            time.sleep(0.002)
    for call in open_calls:
        call.cancel()
    wait_for(lambda: server.engine.admission.used == IDLE)


def test_1_many_cancels_leave_no_slot_taken(serve, connect):
    server = serve()
    _storm(server, 500)
    assert len(connect(server).detect(PICTURE, ["cat"])) == 1


@pytest.mark.slow
def test_1_ten_thousand_cancels_leave_no_slot_taken(serve, connect):
    server = serve()
    _storm(server, 10_000)
    assert len(connect(server).detect(PICTURE, ["cat"])) == 1


def test_2_streams_that_are_cancelled_leave_nothing_behind(serve):
    server = serve(max_live_streams=8)
    _cancel_streams(server, 8)  # what is made only once is made
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    _cancel_streams(server, 40)  # five times as many as may be open: those before have freed their room
    wait_for(lambda: server.engine.admission.used == IDLE)
    assert threading.active_count() <= before[0] + 4
    assert len(os.listdir("/proc/self/fd")) <= before[1] + 4


def _cancel_streams(server, count):
    with grpc.insecure_channel(server.address) as channel:
        stub = PerceptionServiceStub(channel)
        for _ in range(count):
            wait_for(lambda: _first_replies(stub))


def _first_replies(stub):
    """Read two replies of an endless stream and leave; False where the server had no room yet."""
    call = stub.StreamPerceive(stream_of(itertools.repeat(PNG)))
    try:
        kinds = [next(call).WhichOneof("message") for _ in range(2)]
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    call.cancel()
    assert kinds == ["accepted", "result"]
    return True


def test_3_no_more_calls_than_admitted_wave_after_wave(serve, model):
    server = serve(model, max_requests=3, max_client_requests=20)
    stub = stub_of(server)
    for _ in range(3):
        model.hold()
        calls = [stub.DetectObjects.future(detect_request()) for _ in range(20)]
        wait_for(lambda calls=calls: sum(call.done() for call in calls) == 17)
        assert server.engine.admission.used["requests"] == 3
        codes = [call.code() for call in calls if call.done()]
        assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        model.release()
        for call in calls:
            call.exception()
        assert sum(call.code() == grpc.StatusCode.OK for call in calls) == 3
        wait_for(lambda: server.engine.admission.used == IDLE)


def test_4_what_is_held_does_not_grow(serve, connect):
    server = serve(max_kept_bytes=20_000)
    client = connect(server)
    for _ in range(60):
        client.encode(PICTURE)
    assert server.engine.kept.nbytes <= 20_000
    assert len(server.engine.kept) <= 20
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(15):  # a connection for each call
        with Client(server.address, timeout_s=20) as one:
            one.detect(PICTURE, ["cat"])
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before[1] + 4)
    assert threading.active_count() <= before[0] + 8


def test_4_a_stream_holds_no_more_after_many_frames(serve, monkeypatch):
    """What Python holds: pictures, replies and callbacks of frames that are done are gone."""
    server = serve()
    gone, sizes, waiting = threading.Event(), [], []
    alive, begin = weakref.WeakSet(), Presence.__init__
    monkeypatch.setattr(Presence, "__init__", lambda self, *rest: (alive.add(self), begin(self, *rest))[1])

    def frames():
        for number in range(400):
            if number in (100, 399):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
                waiting.append(len(alive))
            yield PNG
        gone.wait(20)

    call = stub_of(server).StreamPerceive(stream_of(frames()))
    tracemalloc.start()
    try:
        replies = sum(next(call).WhichOneof("message") == "result" for _ in range(401))
    finally:
        tracemalloc.stop()
        gone.set()
        call.cancel()
    assert replies == 400
    # A reply of 1 kB that stays, or a picture of 6, would make hundreds of them.
    assert sizes[1] - sizes[0] < 150_000
    assert max(waiting) < 50  # a callback of each frame would keep one of each


def test_5_what_was_unloaded_is_freed_and_a_failed_load_changes_nothing(caplog):
    caplog.set_level(logging.CRITICAL, "serving")  # pytest would keep the traces, and they the models
    made = []

    def broken(pictures):
        raise MemoryError

    def load(name):
        if name == "none":
            raise MemoryError
        model = FakeModel("guest")
        if len(made) == 3:
            model.look = broken  # loads, and fails to warm up
        made.append(weakref.ref(model))
        return model

    with (
        Server([FakeModel()], ServerConfig(port=0, admin_port=0), load=load) as server,
        Client(server.address, timeout_s=20) as client,
        Client(server.address, timeout_s=20, model="guest") as guest,
        grpc.insecure_channel(f"127.0.0.1:{server.admin_port}") as channel,
    ):
        admin = ModelAdminServiceStub(channel)
        for _ in range(3):
            admin.LoadModel(LoadModelRequest(name="guest"))
            assert len(guest.detect(PICTURE, ["cat"])) == 1
            guest.encode(PICTURE)  # kept, and never forgotten by its client
            admin.UnloadModel(UnloadModelRequest(name="guest"))
        assert len(server.engine.kept) == 0
        for name in ("none", "guest"):
            with pytest.raises(grpc.RpcError):
                admin.LoadModel(LoadModelRequest(name=name))
        assert len(made) == 4
        assert [card.name for card in client.models()] == ["fake"]
        assert len(client.detect(PICTURE, ["cat"])) == 1
        gc.collect()
        assert [model() for model in made] == [None] * 4


def test_5_a_load_that_fails_leaves_the_model_it_was_to_replace():
    def load(name):
        model = FakeModel(name)
        if name == "fake":
            model.look = lambda pictures: 1 / 0
        return model

    with (
        Server([first := FakeModel()], ServerConfig(port=0, admin_port=0), load=load) as server,
        Client(server.address, timeout_s=20) as client,
        grpc.insecure_channel(f"127.0.0.1:{server.admin_port}") as channel,
    ):
        with pytest.raises(grpc.RpcError):
            ModelAdminServiceStub(channel).LoadModel(LoadModelRequest(name="fake"))
        assert list(server.engine.models) == [first]
        assert len(client.detect(PICTURE, ["cat"])) == 1
        assert health(server.address, "models/fake") == "SERVING"


def test_6_who_cannot_be_answered_in_time_is_told_before_work_and_when_to_come_back(serve, connect, model):
    server = serve(model, max_requests=2, max_client_requests=2)
    stub = stub_of(server)
    model.hold()
    calls = [stub.DetectObjects.future(detect_request(), timeout=1.5)]
    assert model.busy.wait(10)
    calls.append(stub.DetectObjects.future(detect_request(), timeout=1.5))
    wait_for(lambda: server.engine.worker.depths()["images"] == 1)
    before = _looked_at(model)
    delays = set()
    for _ in range(10):
        with pytest.raises(grpc.RpcError) as caught:
            stub.DetectObjects(detect_request())
        if caught.value.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            break
        for detail in rpc_status.from_call(caught.value).details:
            retry = RetryInfo()
            if detail.Unpack(retry):
                delays.add(retry.retry_delay.nanos + 10**9 * retry.retry_delay.seconds)
    assert len(delays) > 1  # scattered, or all who were refused would come back together
    assert all(0 < delay < 10 * 10**9 for delay in delays)
    for call in calls:
        assert call.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(lambda: server.engine.admission.used["requests"] == 0)
    model.release()
    connect(server).detect(PICTURE, ["cat"])
    # That which was running when the callers left, and the last call's: nothing for the dead.
    assert _looked_at(model) - before == 2


def _looked_at(model):
    return sum(map(len, model.batches))
