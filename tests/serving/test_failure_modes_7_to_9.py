"""Ways in which other servers of models have failed, tried on this one: a device, health, the end."""

import signal
import threading
import time

import grpc
import pytest

from ovperception.client import Client
from ovperception.errors import OVPError, Unavailable
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from serving import Server, ServerConfig
from tests.serving.failure_calls import (
    PICTURE,
    PNG,
    ask_at_once,
    detect_request,
    health,
    stream_of,
    stub_of,
    wait_for,
)
from tests.serving.processes import PATIENCE_S, ServerProcess

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
    answers = ask_at_once(server, model, [PICTURE] * 4)
    assert answers == [1] * 4
    assert failed


def test_7_a_lost_device_ends_the_process():
    with ServerProcess(FATAL, "--port", "0") as process:
        address = process.address()
        with Client(address, timeout_s=20) as client:
            assert len(client.detect(PICTURE, ["cat"])) == 1
            client.embed_text(["now"])
            with pytest.raises(OVPError):
                client.detect(PICTURE, ["cat"])
        assert process.wait(PATIENCE_S) == 1
        assert "the device is lost" in process.stderr.read()


def test_7_health_tells_of_a_lost_device(serve, connect, model):
    told = []
    with Server([model], ServerConfig(port=0), on_fatal=told.append) as server:
        assert health(server.address) == health(server.address, "models/fake") == "SERVING"

        def lost(pictures):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        model.look = lost
        with pytest.raises(OVPError):
            connect(server).detect(PICTURE, ["cat"])
        wait_for(lambda: told)
        assert health(server.address) == health(server.address, "models/fake") == "NOT_SERVING"
        with pytest.raises(Unavailable):
            connect(server).detect(PICTURE, ["cat"])


def test_8_health_answers_while_the_model_and_every_slot_are_busy(serve, model):
    server = serve(model, max_requests=4, max_client_requests=4)
    model.hold()
    stub = stub_of(server)
    calls = [stub.DetectObjects.future(detect_request()) for _ in range(12)]
    assert model.busy.wait(10)
    for _ in range(20):
        assert health(server.address) == "SERVING"
    model.release()
    for call in calls:
        call.exception()


def test_9_a_signal_lets_work_end():
    with (
        ServerProcess(SLOW, "--port", "0", "--grace", "20") as process,
        grpc.insecure_channel(process.address()) as channel,
    ):
        stub = PerceptionServiceStub(channel)
        call = stub.DetectObjects.future(detect_request())
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert call.result(20).objects.detections
        assert process.wait(PATIENCE_S) == 0


def test_9_streams_and_calls_while_a_server_drains(serve, model):
    """Work ends, what comes is turned away at once, and streams tell their clients to go elsewhere."""
    server = serve(model)
    gone = threading.Event()

    def frames():
        yield PNG
        gone.wait(20)  # an idle stream keeps nobody waiting

    model.hold()
    stream = stub_of(server).StreamPerceive(stream_of(frames()))
    assert next(stream).WhichOneof("message") == "accepted"
    call = stub_of(server, 1).DetectObjects.future(detect_request())
    wait_for(lambda: server.engine.admission.used["requests"] == 2)
    stopping = threading.Thread(target=server.stop, args=(20,))
    stopping.start()
    wait_for(lambda: health(server.address) == "NOT_SERVING")
    with pytest.raises(grpc.RpcError) as late:
        stub_of(server, 1).DetectObjects(detect_request(), timeout=5)
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
