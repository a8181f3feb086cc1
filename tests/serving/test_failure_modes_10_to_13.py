"""Ways in which other servers of models have failed, tried on this one: wrong or early answers."""

import os
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest

from ovperception.errors import InvalidImage, ResourceExhausted
from ovperception.images import encode_png
from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perceive_pb2 as pp
from serving import Server, ServerConfig
from tests.conftest import ROOT
from tests.serving.failure_calls import PICTURE, ask_at_once, detect_request, health, stub_of, words_of
from tests.serving.fake_model import POISON, FakeModel

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
                vocabulary=words_of(name), outputs=outputs, overload_policy=pp.OVERLOAD_POLICY_BLOCK
            )
            yield pp.StreamPerceiveRequest(config=config)
            for sequence in range(1, 16):
                if sequence == 8 and number % 2:
                    update = pp.StreamUpdate(
                        from_sequence=number + 80, vocabulary=words_of(f"other-{number}")
                    )
                    yield pp.StreamPerceiveRequest(update=update)
                frame = pp.StreamFrame(sequence=number + 10 * sequence, image=im.Image(encoded=picture))
                yield pp.StreamPerceiveRequest(frame=frame)

        expected = [number + 10 * sequence for sequence in range(1, 16)]
        got, scores, classes = [], set(), []
        for reply in stub_of(server, number).StreamPerceive(messages()):
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


def test_11_a_bad_image_fails_alone(serve, model):
    server = serve(model, max_client_requests=64)
    poison = PICTURE.copy()
    poison[0, 0, 0] = POISON
    assert ask_at_once(server, model, [PICTURE, poison, PICTURE]) == [1, "INVALID_ARGUMENT", 1]


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


def test_13_not_ready_until_warm(model):
    model.hold()
    server = Server([model], ServerConfig(port=0))
    starting = threading.Thread(target=server.start)
    starting.start()
    try:
        assert model.busy.wait(10)
        assert health(server.address) == health(server.address, "models/fake") == "NOT_SERVING"
        model.release()
        starting.join(10)
        assert health(server.address) == health(server.address, "models/fake") == "SERVING"
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
        health(server.address)


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
    call = stub_of(server).DetectObjects.future(detect_request())
    assert model.busy.wait(10)
    with pytest.raises(ResourceExhausted):
        connect(server).detect(PICTURE, ["cat"])
    model.release()
    assert call.result(10)
