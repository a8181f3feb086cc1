"""Calls of a server by the stubs themselves, and servers in processes of their own."""

import time

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ovperception.images import encode_png
from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perceive_pb2 as pp
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary, VocabularySpec

PICTURE = np.full((40, 50, 3), 100, np.uint8)
PNG = encode_png(PICTURE)
IDLE = {"requests": 0, "bytes": 0, "pixels": 0}


def words_of(*names):
    return VocabularySpec(inline=Vocabulary(classes=[{"name": name} for name in names]))


def detect_request(*names, **rest):
    return pb.DetectObjectsRequest(
        image=im.Image(encoded=PNG), vocabulary=words_of(*(names or ("cat",))), **rest
    )


def wait_for(condition, timeout_s=20):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def stub_of(server, number=0):
    return PerceptionServiceStub(grpc.insecure_channel(server.address, [("ovp.channel", number)]))


def health(address, name=""):
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def stream_of(images, sequence=None):
    outputs = [pp.PerceiveOutput(detect=pp.DetectOutput())]
    config = pp.StreamConfig(
        vocabulary=words_of("cat"), outputs=outputs, overload_policy=pp.OVERLOAD_POLICY_BLOCK
    )
    yield pp.StreamPerceiveRequest(config=config)
    for number, image in enumerate(images, 1):
        yield pp.StreamPerceiveRequest(frame=pp.StreamFrame(sequence=number, image=im.Image(encoded=image)))


def ask_at_once(server, model, pictures):
    """What becomes of pictures that wait for the model together."""
    model.hold()
    model.busy.clear()
    stub = stub_of(server, 99)
    first = stub.DetectObjects.future(detect_request())
    assert model.busy.wait(10)
    calls = [
        stub.DetectObjects.future(
            pb.DetectObjectsRequest(image=im.Image(encoded=encode_png(picture)), vocabulary=words_of("cat"))
        )
        for picture in pictures
    ]
    wait_for(lambda: server.engine.worker.depths()["images"] == len(pictures))
    model.release()
    first.result(20)
    return [
        call.code().name if call.exception(20) else len(call.result().objects.detections) for call in calls
    ]
