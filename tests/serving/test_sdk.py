"""The client with a real server: handles that expire, second tries, smaller pictures, tokens."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import grpc
import numpy as np
import pytest

from ovperception.client import TLS, Client
from ovperception.client.retries import Retries
from ovperception.errors import (
    InvalidImage,
    InvalidParameter,
    InvalidVocabulary,
    MissingFile,
    OVPError,
    ResourceExhausted,
    Unavailable,
)
from ovperception.images import encode_png
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.perception_service_pb2_grpc import (
    PerceptionServiceServicer,
    add_PerceptionServiceServicer_to_server,
)
from ovperception.wire_errors import status_of
from tests.serving.fake_model import FakeModel

PICTURE = np.full((40, 50, 3), 100, np.uint8)
WORDS = ["cat", "dog|hound"]


@pytest.fixture
def sent(client):
    """The vocabularies of the requests that `client` sends, as they are named."""
    seen = []
    call = client.calls.call

    def note(method, request):
        if hasattr(request, "vocabulary"):
            seen.append(request.vocabulary.WhichOneof("value"))
        return call(method, request)

    client.calls.call = note
    return seen


def test_words_are_sent_once(client, sent):
    first = client.detect(PICTURE, WORDS)
    assert client.detect(PICTURE, WORDS).to_json() == first.to_json()
    client.panoptic(PICTURE, WORDS)
    client.detect(PICTURE, ["cow"])
    assert sent == ["inline", "name", "name", "inline"]


def test_a_handle_that_expired_is_replaced_without_a_word(serve, connect, model, monkeypatch):
    client = connect(serve(model, vocabulary_ttl_s=0.3))
    first = client.detect(PICTURE, WORDS)
    time.sleep(0.4)
    assert client.detect(PICTURE, WORDS).to_json() == first.to_json()
    with client.encode(PICTURE) as scene:  # both handles gone at once
        scene.detect(WORDS)
        time.sleep(0.4)
        scene._image.image_id = "images/gone"
        assert scene.detect(WORDS).to_json() == first.to_json()
        assert scene.image_id not in {"", "images/gone"}


def test_a_server_that_keeps_nothing_gets_the_words_each_time(serve, connect, model):
    client = connect(serve(model, max_vocabulary_bytes=1))
    for _ in range(3):
        assert client.detect(PICTURE, WORDS).classes == ("cat", "dog")


def test_a_vocabulary_the_server_does_not_take_is_not_sent_for_ever(serve, connect, model):
    with pytest.raises(InvalidVocabulary):
        connect(serve(model, max_classes=1)).detect(PICTURE, WORDS)


@pytest.mark.parametrize("form", ["array", "bytes"])
def test_a_picture_too_large_for_the_server_is_sent_smaller(serve, connect, model, form):
    large = cv2.resize(np.random.default_rng(0).integers(20, 255, (12, 16, 3), np.uint8), (320, 240))
    client = connect(serve(model, max_pixels=100 * 130, max_queued_pixels=10**6))
    source = large if form == "array" else encode_png(large)
    with client.encode(source) as scene:
        assert scene.size == (240, 320)
        found = scene.detect(WORDS)
        assert found.size == (240, 320)
        assert all(mask.size == (240, 320) for mask in found.masks)
        for mask, box in zip(found.masks, found.boxes, strict=True):
            assert np.abs(mask.box - box).max() < 8  # of masks cut to whole pixels of the smaller picture
        assert scene.semantic(WORDS, scores=True).scores.shape == (240, 320)
        panoptic = scene.panoptic(WORDS)
        assert panoptic.size == (240, 320)
        assert [s.area for s in panoptic.segments] == [
            (panoptic.ids == s.id).sum() for s in panoptic.segments
        ]
        assert scene.heatmap("x").shape == (240, 320)
        box = np.array([[0, 0, 320, 240]], np.float32)
        _, _, width, height = scene.embed_regions(box)[0][:4]
        assert (width, height) == (model.batches[-1][-1][1], model.batches[-1][-1][0])
        np.testing.assert_allclose(scene.detect(WORDS, boxes=box).boxes, box, atol=0.01)


def test_smaller_if_asked_for(serve, connect, model):
    server = serve(model)
    assert connect(server, max_pixels=500).detect(PICTURE, WORDS).size == (40, 50)
    assert np.prod(model.batches[-1][-1][:2]) <= 500
    connect(server, max_pixels=2000).detect(PICTURE, WORDS)
    assert model.batches[-1][-1] == (40, 50, 3)


def test_other_faults_of_pictures_are_not_mended(client):
    with pytest.raises(InvalidImage):
        client.detect(b"GIF89a", WORDS)


class _Busy(PerceptionServiceServicer):
    """Has no room a number of times, and notes when it was asked, and with how much time left."""

    def __init__(self, error, times):
        self.error, self.times, self.seen = error, times, []

    def GetServerInfo(self, request, context):
        self.seen.append((time.monotonic(), context.time_remaining()))
        if len(self.seen) <= self.times:
            from grpc_status import rpc_status

            context.abort_with_status(rpc_status.to_status(status_of(self.error)))
        return pb.GetServerInfoResponse(version="1")


@pytest.fixture
def busy():
    """`busy(error, times) -> (servicer, client)`."""
    ends = []

    def make(error, times, **options):
        servicer = _Busy(error, times)
        server = grpc.server(ThreadPoolExecutor(2))
        add_PerceptionServiceServicer_to_server(servicer, server)
        client = Client(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", **options)
        server.start()
        ends.extend([client.close, lambda: server.stop(0)])
        return servicer, client

    yield make
    for end in ends:
        end()


def test_a_second_try_comes_when_the_server_says(busy):
    error = ResourceExhausted("full")
    error.retry_after_ms = 150
    servicer, client = busy(error, 2, timeout_s=5)  # longer ones travel rounded
    assert client.server_info().version == "1"
    gaps = np.diff([seen for seen, _ in servicer.seen])
    assert len(gaps) == 2
    assert gaps.min() >= 0.15
    left = [left for _, left in servicer.seen]
    assert left[0] > left[1] > left[2]  # each try has what is left of the time, not all of it


def test_no_try_beyond_the_deadline(busy):
    error = ResourceExhausted("full")
    error.retry_after_ms = 5000
    servicer, client = busy(error, 2, timeout_s=1)
    with pytest.raises(ResourceExhausted, match="full"):
        client.server_info()
    assert len(servicer.seen) == 1


def test_tries_have_a_budget():
    retries, error = Retries(), Unavailable("gone")
    assert [retries.delay_s(error, attempt, 99) is None for attempt in (1, 2, 3, 4)] == [False] * 3 + [True]
    spent = sum(retries.delay_s(error, 1, 99) is not None for _ in range(50))
    assert spent < 5
    assert retries.delay_s(error, 1, 99) is None
    for _ in range(20):
        retries.success()
    assert retries.delay_s(error, 1, 99) is not None
    assert retries.delay_s(ResourceExhausted("message too large"), 1, 99) is None
    assert retries.delay_s(OVPError("a bug"), 1, 99) is None


def test_a_token_is_shown_and_never_in_clear(serve, connect, model, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("robot:infer:a-token-of-some-length\n")
    server = serve(model, tokens_file=tokens)
    with pytest.raises(OVPError, match="no token"):
        connect(server).detect(PICTURE, WORDS)
    assert connect(server, token="a-token-of-some-length").detect(PICTURE, WORDS)
    with pytest.raises(InvalidParameter, match="in clear"):
        Client("robot:50051", token="a-token-of-some-length")


def test_tls_options(tmp_path):
    with pytest.raises(InvalidParameter, match="key"):
        TLS(certificate="a.pem")
    with pytest.raises(MissingFile):
        Client("robot:50051", tls=TLS(root_certificates=tmp_path / "none.pem"))
    client = Client("localhost:1", tls=True, token="x", timeout_s=0.2)
    with pytest.raises(Unavailable):
        client.server_info()
    client.close()


def test_one_client_for_many_threads(client, model):
    expected = FakeModel().encode(PICTURE).detect(WORDS).to_json()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.detect(PICTURE, WORDS).to_json()))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [expected] * 16
