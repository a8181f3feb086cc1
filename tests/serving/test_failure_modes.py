"""The thirteen ways in which other servers of models have failed, each tried on this one."""

import gc
import itertools
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from ovperception.client import Client
from ovperception.errors import InvalidImage, OVPError, ResourceExhausted, Unavailable
from ovperception.images import encode_png
from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perceive_pb2 as pp
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.model_admin_service_pb2 import LoadModelRequest, UnloadModelRequest
from ovperception.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary, VocabularySpec
from serving import Server, ServerConfig, questions
from tests.conftest import ROOT
from tests.serving.fake_model import POISON, FakeModel

PICTURE = np.full((40, 50, 3), 100, np.uint8)
PNG = encode_png(PICTURE)
IDLE = {"requests": 0, "bytes": 0, "pixels": 0}


def _words(*names):
    return VocabularySpec(inline=Vocabulary(classes=[{"name": name} for name in names]))


def _detect(*names, **rest):
    return pb.DetectObjectsRequest(
        image=im.Image(encoded=PNG), vocabulary=_words(*(names or ("cat",))), **rest
    )


def _wait_for(condition, timeout_s=20):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def _stub(server, number=0):
    return PerceptionServiceStub(grpc.insecure_channel(server.address, [("ovp.channel", number)]))


def _health(address, name=""):
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


# 1


@pytest.mark.parametrize("stage", ["decode", "queue", "model", "ask", "encode"])
def test_1_a_caller_leaves_at_each_stage(serve, connect, monkeypatch, stage):
    model = FakeModel()
    server = serve(model, max_client_requests=64)
    reached, go = threading.Event(), threading.Event()

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
    call = _stub(server).DetectObjects.future(_detect())
    if stage in {"decode", "ask", "encode"}:
        assert reached.wait(10)
    else:
        assert model.busy.wait(10)
    if stage == "queue":
        waiting = _stub(server).DetectObjects.future(_detect())
        _wait_for(lambda: server.engine.worker.depths()["images"] == 1)
        waiting.cancel()
    call.cancel()
    go.set()
    model.release()
    _wait_for(lambda: server.engine.admission.used == IDLE)
    assert len(connect(server).detect(PICTURE, ["cat"])) == 1


def _storm(server, count):
    """Calls that are cancelled at random moments; none of them may hold anything afterwards."""
    stubs = [_stub(server, number) for number in range(4)]
    rng = random.Random(1)
    open_calls = []
    for turn in range(count):
        open_calls.append(stubs[turn % 4].DetectObjects.future(_detect()))
        if len(open_calls) > 32:
            open_calls.pop(rng.randrange(len(open_calls))).cancel()
        if not turn % 97:
            time.sleep(0.002)
    for call in open_calls:
        call.cancel()
    _wait_for(lambda: server.engine.admission.used == IDLE)


def test_1_many_cancels_leave_no_slot_taken(serve, connect):
    server = serve()
    _storm(server, 500)
    assert len(connect(server).detect(PICTURE, ["cat"])) == 1


@pytest.mark.slow
def test_1_ten_thousand_cancels_leave_no_slot_taken(serve, connect):
    server = serve()
    _storm(server, 10_000)
    assert len(connect(server).detect(PICTURE, ["cat"])) == 1


# 2


def _stream_of(images, sequence=None):
    outputs = [pp.PerceiveOutput(detect=pp.DetectOutput())]
    config = pp.StreamConfig(
        vocabulary=_words("cat"), outputs=outputs, overload_policy=pp.OVERLOAD_POLICY_BLOCK
    )
    yield pp.StreamPerceiveRequest(config=config)
    for number, image in enumerate(images, 1):
        yield pp.StreamPerceiveRequest(frame=pp.StreamFrame(sequence=number, image=im.Image(encoded=image)))


def test_2_streams_that_are_cancelled_leave_nothing_behind(serve):
    server = serve(max_live_streams=8)
    _cancel_streams(server, 8)  # what is made only once is made
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    _cancel_streams(server, 40)  # five times as many as may be open: those before have freed their room
    _wait_for(lambda: server.engine.admission.used == IDLE)
    assert threading.active_count() <= before[0] + 4
    assert len(os.listdir("/proc/self/fd")) <= before[1] + 4


def _cancel_streams(server, count):
    with grpc.insecure_channel(server.address) as channel:
        stub = PerceptionServiceStub(channel)
        for _ in range(count):
            _wait_for(lambda: _first_replies(stub))


def _first_replies(stub):
    """Read two replies of an endless stream and leave; False where the server had no room yet."""
    call = stub.StreamPerceive(_stream_of(itertools.repeat(PNG)))
    try:
        kinds = [next(call).WhichOneof("message") for _ in range(2)]
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    call.cancel()
    assert kinds == ["accepted", "result"]
    return True


# 3


def test_3_no_more_calls_than_admitted_wave_after_wave(serve, model):
    server = serve(model, max_requests=3, max_client_requests=3)
    stub = _stub(server)
    for _ in range(3):
        model.hold()
        calls = [stub.DetectObjects.future(_detect()) for _ in range(20)]
        _wait_for(lambda calls=calls: sum(call.done() for call in calls) == 17)
        assert server.engine.admission.used["requests"] == 3
        codes = [call.code() for call in calls if call.done()]
        assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        model.release()
        for call in calls:
            call.exception()
        assert sum(call.code() == grpc.StatusCode.OK for call in calls) == 3
        _wait_for(lambda: server.engine.admission.used == IDLE)


# 4


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
    _wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before[1] + 4)
    assert threading.active_count() <= before[0] + 8


def test_4_a_stream_holds_no_more_after_many_frames(serve):
    """What Python holds: pictures, replies and callbacks of frames that are done are gone."""
    server = serve()
    gone, sizes = threading.Event(), []

    def frames():
        for number in range(400):
            if number in (100, 399):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
            yield PNG
        gone.wait(20)

    call = _stub(server).StreamPerceive(_stream_of(frames()))
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


# 5


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
        assert _health(server.address, "models/fake") == "SERVING"


# 6


def test_6_who_cannot_be_answered_in_time_is_told_before_work_and_when_to_come_back(serve, connect, model):
    server = serve(model, max_requests=2, max_client_requests=2)
    stub = _stub(server)
    model.hold()
    calls = [stub.DetectObjects.future(_detect(), timeout=1.5) for _ in range(2)]
    assert model.busy.wait(10)
    before = len(model.batches)
    delays = set()
    for _ in range(10):
        with pytest.raises(grpc.RpcError) as caught:
            stub.DetectObjects(_detect())
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
    _wait_for(lambda: server.engine.admission.used["requests"] == 0)
    model.release()
    connect(server).detect(PICTURE, ["cat"])
    # At most the pass that was running when the callers left, and the last call's: nothing for the dead.
    assert len(model.batches) - before <= 2


# 7


def test_7_a_batch_without_memory_is_split(serve, connect, model):
    class OutOfMemoryError(RuntimeError):  # by its name, as torch's
        pass

    look, failed = model.look, []

    def small_only(pictures):
        if len(pictures) > 1:
            failed.append(len(pictures))
            raise OutOfMemoryError
        return look(pictures)

    server = serve(model, max_client_requests=64)
    model.look = small_only
    answers = _at_once(server, model, [PICTURE] * 4)
    assert answers == [1] * 4
    assert failed


FATAL = """
import sys
import ovperception
from tests.serving.fake_model import FakeModel
model = FakeModel()
def look(pictures):
    if model.armed:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return FakeModel.look(model, pictures)
model.armed = False
model.look = look
model.embed_text = lambda texts: setattr(model, "armed", True) or FakeModel.embed_text(model, texts)
ovperception.load = lambda name, **options: model
from ovperception.cli import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""


def _start(script, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    for line in process.stderr:
        if "listening on" in line:
            return process, line.split("listening on ")[1].split()[0]
    raise AssertionError("it ended before it listened")


def test_7_a_lost_device_ends_the_process():
    process, address = _start(FATAL)
    with process:
        with Client(address, timeout_s=20) as client:
            assert len(client.detect(PICTURE, ["cat"])) == 1
            client.embed_text(["now"])
            with pytest.raises(OVPError):
                client.detect(PICTURE, ["cat"])
        assert process.wait(20) == 1
        assert "the device is lost" in process.stderr.read()


def test_7_health_tells_of_a_lost_device(serve, connect, model):
    told = []
    with Server([model], ServerConfig(port=0), on_fatal=told.append) as server:
        assert _health(server.address) == _health(server.address, "models/fake") == "SERVING"

        def lost(pictures):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        model.look = lost
        with pytest.raises(OVPError):
            connect(server).detect(PICTURE, ["cat"])
        _wait_for(lambda: told)
        assert _health(server.address) == _health(server.address, "models/fake") == "NOT_SERVING"
        with pytest.raises(Unavailable):
            connect(server).detect(PICTURE, ["cat"])


# 8


def test_8_health_answers_while_the_model_and_every_slot_are_busy(serve, model):
    server = serve(model, max_requests=4, max_client_requests=4)
    model.hold()
    stub = _stub(server)
    calls = [stub.DetectObjects.future(_detect()) for _ in range(12)]
    assert model.busy.wait(10)
    for _ in range(20):
        assert _health(server.address) == "SERVING"
    model.release()
    for call in calls:
        call.exception()


# 9


def test_9_a_signal_lets_work_end():
    process, address = _start(SLOW, "--grace", "20")
    with process, grpc.insecure_channel(address) as channel:
        stub = PerceptionServiceStub(channel)
        call = stub.DetectObjects.future(_detect())
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert call.result(20).objects.detections
        assert process.wait(20) == 0


def test_9_streams_and_calls_while_a_server_drains(serve, model):
    """Work ends, what comes is turned away at once, and streams tell their clients to go elsewhere."""
    server = serve(model)
    gone = threading.Event()

    def frames():
        yield PNG
        gone.wait(20)  # an idle stream keeps nobody waiting

    model.hold()
    stream = _stub(server).StreamPerceive(_stream_of(frames()))
    assert next(stream).WhichOneof("message") == "accepted"
    call = _stub(server, 1).DetectObjects.future(_detect())
    _wait_for(lambda: server.engine.admission.used["requests"] == 2)
    stopping = threading.Thread(target=server.stop, args=(20,))
    stopping.start()
    _wait_for(lambda: _health(server.address) == "NOT_SERVING")
    with pytest.raises(grpc.RpcError) as late:
        _stub(server, 1).DetectObjects(_detect(), timeout=5)
    assert late.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not call.done()
    model.release()
    assert len(call.result(10).objects.detections) == 1
    assert next(stream).WhichOneof("message") == "result"
    with pytest.raises(grpc.RpcError) as ended:
        next(stream)
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in ended.value.details()
    gone.set()
    stopping.join(10)
    assert not stopping.is_alive()


SLOW = """
import sys, time
import ovperception
from tests.serving.fake_model import FakeModel
class Slow(FakeModel):
    def look(self, pictures):
        time.sleep(1)
        return FakeModel.look(self, pictures)
ovperception.load = lambda name, **options: Slow(name)
from ovperception.cli import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""


# 10


def test_10_streams_share_nothing(serve):
    """Each has its own words, numbers and pictures, and gets no other's answers."""
    server = serve(max_client_requests=64)
    wrong, done = [], []

    def follow(number):
        shade = 20 * number + 30
        picture = encode_png(np.full((32, 32, 3), shade, np.uint8))
        outputs = [pp.PerceiveOutput(detect=pp.DetectOutput())]
        name = f"word-{number}"

        def messages():
            config = pp.StreamConfig(
                vocabulary=_words(name), outputs=outputs, overload_policy=pp.OVERLOAD_POLICY_BLOCK
            )
            yield pp.StreamPerceiveRequest(config=config)
            for sequence in range(1, 16):
                if sequence == 8 and number % 2:
                    update = pp.StreamUpdate(from_sequence=number + 80, vocabulary=_words(f"other-{number}"))
                    yield pp.StreamPerceiveRequest(update=update)
                frame = pp.StreamFrame(sequence=number + 10 * sequence, image=im.Image(encoded=picture))
                yield pp.StreamPerceiveRequest(frame=frame)

        expected = [number + 10 * sequence for sequence in range(1, 16)]
        got, scores, classes = [], set(), []
        for reply in _stub(server, number).StreamPerceive(messages()):
            if reply.WhichOneof("message") == "result":
                got.append(reply.sequence)
                answer = reply.result.answers[0].objects.detections
                scores |= {round(found.score, 5) for found in answer}
                classes += [entry.name for entry in reply.result.classes]
        second = f"other-{number}" if number % 2 else name
        if got != expected or classes != [name] * 7 + [second] * 8 or len(scores) != 1 + number % 2:
            wrong.append((number, got, scores))
        done.append(scores)

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert len(done) == 6
    assert len(set(map(frozenset, done))) == 6


# 11


def _at_once(server, model, pictures):
    """What becomes of pictures that wait for the model together."""
    model.hold()
    model.busy.clear()
    stub = _stub(server, 99)
    first = stub.DetectObjects.future(_detect())
    assert model.busy.wait(10)
    calls = [
        stub.DetectObjects.future(
            pb.DetectObjectsRequest(image=im.Image(encoded=encode_png(picture)), vocabulary=_words("cat"))
        )
        for picture in pictures
    ]
    _wait_for(lambda: server.engine.worker.depths()["images"] == len(pictures))
    model.release()
    first.result(20)
    return [
        call.code().name if call.exception(20) else len(call.result().objects.detections) for call in calls
    ]


def test_11_a_bad_image_fails_alone(serve, model):
    server = serve(model, max_client_requests=64)
    poison = PICTURE.copy()
    poison[0, 0, 0] = POISON
    assert _at_once(server, model, [PICTURE, poison, PICTURE]) == [1, "INVALID_ARGUMENT", 1]


# 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_12_boxes_are_in_pixels_of_the_upright_picture(serve, connect, orientation):
    """The answer to a picture with an orientation is that to the picture turned upright."""
    from ovperception.images import load_image

    upright = np.random.default_rng(0).integers(40, 255, (37, 61, 3), np.uint8)
    data = _jpeg(upright, orientation)
    picture = load_image(data)
    server = serve()
    with connect(server).encode(data) as scene:
        there = scene.detect(["cat", "dog"])
        assert scene.size == picture.shape[:2] == ((61, 37) if orientation > 4 else (37, 61))
    here = FakeModel().encode(picture).detect(["cat", "dog"])
    np.testing.assert_array_equal(there.boxes, here.boxes)
    for got, expected in zip(there.masks, here.masks, strict=True):
        np.testing.assert_array_equal(got.decode(), expected.decode())


def _jpeg(picture, orientation):
    import cv2

    data = cv2.imencode(".jpg", picture)[1].tobytes()
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


# 13


def test_13_not_ready_until_warm(model):
    model.hold()
    server = Server([model], ServerConfig(port=0))
    starting = threading.Thread(target=server.start)
    starting.start()
    try:
        assert model.busy.wait(10)
        assert _health(server.address) == _health(server.address, "models/fake") == "NOT_SERVING"
        model.release()
        starting.join(10)
        assert _health(server.address) == _health(server.address, "models/fake") == "SERVING"
    finally:
        model.release()
        starting.join(10)
        server.stop(0)


def test_13_a_model_that_fails_to_warm_up_is_not_served(model):
    def broken(pictures):
        raise InvalidImage("nothing is right")

    model.look = broken
    server = Server([model], ServerConfig(port=0))
    with pytest.raises(InvalidImage):
        server.start()
    with pytest.raises(grpc.RpcError):
        _health(server.address)


BROKEN = """
import sys
import ovperception
from tests.serving.fake_model import FakeModel
class Broken(FakeModel):
    def look(self, pictures):
        raise RuntimeError("nothing is right")
ovperception.load = lambda name, **options: Broken(name)
from ovperception.cli import main
sys.exit(main(["serve", "--port", "0"]))
"""


def test_13_a_start_that_fails_has_a_status():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], capture_output=True, text=True, cwd=ROOT, timeout=60, env=environment
    )
    assert done.returncode == 1
    assert "listening" not in done.stderr
    assert "nothing is right" in done.stderr


def test_too_much_is_refused_in_a_typed_way_all_through(serve, connect, model):
    """What ties them together: after everything above, a refusal is an error of ours."""
    server = serve(model, max_requests=1)
    model.hold()
    call = _stub(server).DetectObjects.future(_detect())
    assert model.busy.wait(10)
    with pytest.raises(ResourceExhausted):
        connect(server).detect(PICTURE, ["cat"])
    model.release()
    assert call.result(10)
