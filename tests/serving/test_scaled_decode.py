"""Large JPEG files for a small model: decoded smaller if the server was told so, answered in their pixels."""

import dataclasses
import io

import numpy as np
import pytest

import ovperception
from ovperception.client import Client
from ovperception.datasets import scenes
from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perceive_pb2 as pp
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary, VocabularySpec
from serving import Server, ServerConfig
from serving.intake import Intake
from tests.serving.fake_model import FakeModel

Image = pytest.importorskip("PIL.Image")

WORDS = ["rooster", "toolbox", "snowman|snow man", "grass", "sky"]


SIZE, HALF = (512, 640), (256, 320)  # (height, width)


def _load(**options):
    """`tiny`, that works at half of the picture."""
    model = ovperception.load("tiny", **options)
    model.preprocessing = dataclasses.replace(model.preprocessing, shortest_edge=HALF[0])
    return model


@pytest.fixture(scope="module")
def jpeg():
    file = io.BytesIO()
    Image.fromarray(scenes.scene("val", 3, SIZE).image).save(file, "JPEG", quality=92)
    return file.getvalue()


@pytest.fixture(scope="module")
def model():
    return _load(scaled_decode=True)


@pytest.fixture(scope="module")
def exact_model():
    return _load()


@pytest.fixture
def decoded(monkeypatch):
    """The sizes that pictures were decoded to."""
    sizes, decode = [], Intake._decode

    def watched(self, picture, least, then):
        def note(pixels):
            sizes.append(pixels.shape[:2])
            return then(pixels)

        return decode(self, picture, least, note)

    monkeypatch.setattr(Intake, "_decode", watched)
    return sizes


@pytest.fixture
def ask(model):
    """Ask a server that was told to decode so, or not: `ask(scaled, question) -> answer`."""

    def run(scaled, question):
        config = ServerConfig(port=0, scaled_decode=scaled)
        with Server([model], config) as server, Client(server.address, timeout_s=120) as client:
            return question(client)

    return run


def _answers(scene):
    found = scene.detect(WORDS, score_threshold=0.0, max_detections=10)
    return found.to_json(), scene.semantic(WORDS).labels, scene.size


def test_served_answers_equal_local_ones_in_pixels_of_the_whole(model, jpeg, ask, decoded):
    local = _answers(model.encode(jpeg))
    served = ask(True, lambda client: _answers(client.encode(jpeg)))
    assert decoded == [HALF]
    assert served[0] == local[0]
    np.testing.assert_array_equal(served[1], local[1])
    assert served[2] == local[2] == served[1].shape == SIZE


def test_without_being_told_all_pixels_count(exact_model, model, jpeg, ask, decoded):
    exact = _answers(exact_model.encode(jpeg))
    served = ask(False, lambda client: _answers(client.encode(jpeg)))
    assert decoded == [SIZE]
    assert served[0] == exact[0]
    np.testing.assert_array_equal(served[1], exact[1])
    assert _answers(model.encode(jpeg))[0] != exact[0]


def test_it_hardly_changes_what_is_found(exact_model, model, jpeg):
    exact, scaled = (m.encode(jpeg).semantic(WORDS).labels for m in (exact_model, model))
    assert (exact == scaled).mean() > 0.97


def test_whole_images_are_embedded_from_all_pixels(exact_model, jpeg, ask):
    served = ask(True, lambda client: client.embed_image(jpeg))
    np.testing.assert_array_equal(served, exact_model.embed_image(jpeg))


def test_the_largest_of_several_models_is_served(model, exact_model, serve, connect, jpeg, decoded):
    large = FakeModel("large")  # works at all pixels
    client = connect(serve(model, large, scaled_decode=True), timeout_s=120)
    request = pp.BatchPerceiveRequest(
        vocabulary=VocabularySpec(inline=Vocabulary(classes=[{"name": "cat"}])),
        outputs=[pp.PerceiveOutput(detect={}), pp.PerceiveOutput(detect={}, model="large")],
        items=[{"image": im.Image(encoded=jpeg)}],
    )
    reply = client.call(PerceptionServiceStub(client._channel).BatchPerceive, request)
    assert reply.items[0].WhichOneof("outcome") == "result", reply
    assert decoded == [SIZE]


def test_the_server_says_so(serve, connect):
    assert connect(serve(scaled_decode=True)).server_info().scaled_decode
    assert not connect(serve()).server_info().scaled_decode
