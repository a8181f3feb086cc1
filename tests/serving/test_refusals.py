"""Every way to ask wrongly or too much: a typed error that names the field, and a server that goes on."""

import math
import threading
import time

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from ovperception.client import Client
from ovperception.errors import (
    DeadlineExceeded,
    InvalidImage,
    InvalidParameter,
    InvalidRegions,
    InvalidVocabulary,
    OVPError,
    ResourceExhausted,
    Unavailable,
    UnknownModel,
    UnknownVocabulary,
    Unsupported,
)
from ovperception.images import encode_png
from ovperception.v1 import image_pb2 as im
from ovperception.v1 import model_service_pb2 as ms
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.model_service_pb2_grpc import ModelServiceStub
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary as VocabularyMessage
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from serving import Server, ServerConfig
from tests.serving.fake_model import POISON, FakeModel

PICTURE = np.full((40, 50, 3), 100, np.uint8)
PNG = encode_png(PICTURE)
RAW = {"data": bytes(60), "width": 5, "height": 4, "format": "PIXEL_FORMAT_RGB8"}
CAT = VocabularySpec(inline=VocabularyMessage(classes=[{"name": "cat"}]))


def _words(*classes, **rest):
    return VocabularySpec(inline=VocabularyMessage(classes=classes, **rest))


def _detect(**changes):
    parts = {"image": im.Image(encoded=PNG), "vocabulary": CAT}
    return pb.DetectObjectsRequest(**{**parts, **changes})


def _raw(**changes):
    return _detect(image=im.Image(raw={**RAW, **changes}))


BAD = {
    "no image": (_detect(image=None), InvalidImage, "image"),
    "empty image": (_detect(image=im.Image(encoded=b"")), InvalidImage, "image.encoded"),
    "no picture": (_detect(image=im.Image(encoded=b"GIF89a")), InvalidImage, "image.encoded"),
    "truncated": (_detect(image=im.Image(encoded=PNG[:-20])), InvalidImage, "image.encoded"),
    "corrupt": (_detect(image=im.Image(encoded=PNG[:40] + b"?" + PNG[41:])), InvalidImage, "image.encoded"),
    "too many pixels": (
        _detect(image=im.Image(encoded=encode_png(np.zeros((300, 400), np.uint8)))),
        InvalidImage,
        "image.encoded",
    ),
    "raw without format": (_raw(format=0), InvalidImage, "image.raw.format"),
    "raw too short": (_raw(data=bytes(59)), InvalidImage, "image.raw.data"),
    "raw too long": (_raw(data=bytes(61)), InvalidImage, "image.raw.data"),
    "raw stride too small": (_raw(row_stride=14), InvalidImage, "image.raw.row_stride"),
    "raw stride huge": (_raw(row_stride=2**32 - 1), InvalidImage, "image.raw.data"),
    "raw empty": (_raw(width=0), InvalidImage, "image.raw.width"),
    "raw immense": (_raw(width=2**32 - 1, height=2**32 - 1), InvalidImage, "image.raw.width"),
    "odd NV12": (_raw(format="PIXEL_FORMAT_NV12"), InvalidImage, "image.raw.width"),
    "unknown handle": (_detect(image=im.Image(image_id="images/x")), OVPError, "image.image_id"),
    "unknown model": (_detect(model="none"), UnknownModel, "model"),
    "no words": (_detect(vocabulary=None), InvalidVocabulary, "vocabulary"),
    "empty words": (_detect(vocabulary=_words()), InvalidVocabulary, "vocabulary.inline.classes"),
    "blank word": (
        _detect(vocabulary=_words({"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": " "})),
        InvalidVocabulary,
        "vocabulary.inline.classes[3]",
    ),
    "word twice": (
        _detect(vocabulary=_words({"name": "a"}, {"name": "a "})),
        InvalidVocabulary,
        "vocabulary.inline.classes[1]",
    ),
    "long word": (
        _detect(vocabulary=_words({"name": "a" * 1000})),
        InvalidVocabulary,
        "vocabulary.inline.classes[0]",
    ),
    "control character": (
        _detect(vocabulary=_words({"name": "a\0"})),
        InvalidVocabulary,
        "vocabulary.inline.classes[0]",
    ),
    "blank synonym": (
        _detect(vocabulary=_words({"name": "a", "synonyms": [""]})),
        InvalidVocabulary,
        "vocabulary.inline.classes[0]",
    ),
    "class threshold": (
        _detect(vocabulary=_words({"name": "a", "score_threshold": math.nan})),
        InvalidVocabulary,
        "vocabulary.inline.classes[0].score_threshold",
    ),
    "too many classes": (
        _detect(vocabulary=_words(*({"name": f"w{i}"} for i in range(401)))),
        InvalidVocabulary,
        "vocabulary.inline.classes",
    ),
    "too many synonyms": (
        _detect(vocabulary=_words({"name": "a", "synonyms": [f"w{i}" for i in range(801)]})),
        InvalidVocabulary,
        "vocabulary.inline.classes",
    ),
    "template": (
        _detect(vocabulary=_words({"name": "a"}, templates=["no place"])),
        InvalidVocabulary,
        "vocabulary.inline.templates[0]",
    ),
    "template set": (
        _detect(vocabulary=_words({"name": "a"}, template_set="no_set")),
        InvalidVocabulary,
        "vocabulary.inline.templates",
    ),
    "templates twice": (
        _detect(vocabulary=_words({"name": "a"}, template_set="none", templates=["{}"])),
        InvalidVocabulary,
        "vocabulary.inline.template_set",
    ),
    "named words": (
        _detect(vocabulary=VocabularySpec(name="../../etc/passwd")),
        UnknownVocabulary,
        "vocabulary.name",
    ),
    "threshold NaN": (_detect(score_threshold=math.nan), InvalidParameter, "score_threshold"),
    "threshold negative": (_detect(score_threshold=-0.1), InvalidParameter, "score_threshold"),
    "threshold above 1": (_detect(score_threshold=1.0001), InvalidParameter, "score_threshold"),
    "threshold infinite": (_detect(nms_iou_threshold=math.inf), InvalidParameter, "nms_iou_threshold"),
    "no detections": (_detect(max_detections=0), InvalidParameter, "max_detections"),
    "negative detections": (_detect(max_detections=-1), InvalidParameter, "max_detections"),
    "no task": (
        pb.SegmentImageRequest(image=im.Image(encoded=PNG), vocabulary=CAT),
        InvalidParameter,
        "task",
    ),
    "unknown task": (
        pb.SegmentImageRequest(image=im.Image(encoded=PNG), vocabulary=CAT, task=99),
        InvalidParameter,
        "task",
    ),
    "label encoding": (
        pb.SegmentImageRequest(
            image=im.Image(encoded=PNG),
            vocabulary=_words(*({"name": f"w{i}"} for i in range(256))),
            task=1,
            label_encoding=1,
        ),
        InvalidParameter,
        "label_encoding",
    ),
    "unknown encoding": (
        pb.SegmentImageRequest(image=im.Image(encoded=PNG), vocabulary=CAT, task=1, label_encoding=77),
        InvalidParameter,
        "label_encoding",
    ),
    "no texts": (pb.EmbedTextRequest(), InvalidParameter, "texts"),
    "blank text": (pb.EmbedTextRequest(texts=["a", "\t"]), InvalidParameter, "texts[1]"),
    "too many texts": (pb.EmbedTextRequest(texts=["a"] * 801), InvalidParameter, "texts"),
    "blank heat": (pb.ComputeHeatmapRequest(image=im.Image(encoded=PNG)), InvalidParameter, "text"),
    "handle as pixels": (pb.EmbedImageRequest(image=im.Image(image_id="images/x")), InvalidImage, "image"),
    "too many boxes": (
        pb.EmbedRegionsRequest(image=im.Image(encoded=PNG), boxes=[{}] * 801),
        InvalidRegions,
        "boxes",
    ),
    "too many regions": (
        pb.DetectObjectsRequest(
            image=im.Image(encoded=PNG), vocabulary=CAT, regions=pb.Regions(boxes=[{}] * 801)
        ),
        InvalidRegions,
        "regions.boxes",
    ),
    "region without area": (
        pb.DetectObjectsRequest(image=im.Image(encoded=PNG), vocabulary=CAT, regions=pb.Regions(boxes=[{}])),
        InvalidRegions,
        "regions.boxes[0]",
    ),
    "model card": (ms.GetModelRequest(name="none"), UnknownModel, "name"),
}
METHODS = {
    "DetectObjectsRequest": "DetectObjects",
    "SegmentImageRequest": "SegmentImage",
    "EmbedTextRequest": "EmbedText",
    "EmbedImageRequest": "EmbedImage",
    "EmbedRegionsRequest": "EmbedRegions",
    "ComputeHeatmapRequest": "ComputeHeatmap",
    "GetModelRequest": "GetModel",
}


@pytest.fixture(scope="module")
def strict():
    config = ServerConfig(port=0, max_classes=400, max_texts=800, max_pixels=100_000)
    with Server([FakeModel()], config) as server, Client(server.address, timeout_s=20) as client:
        yield client


def _call(client, request):
    stub = ModelServiceStub if isinstance(request, ms.GetModelRequest) else PerceptionServiceStub
    method = getattr(stub(client._channel), METHODS[type(request).__name__])
    return client.call(method, request)


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_by_field(strict, name):
    request, kind, field = BAD[name]
    with pytest.raises(kind) as caught:
        _call(strict, request)
    assert caught.value.field == field
    assert caught.value.what


def test_all_bad_ones_in_a_row_then_a_good_one(strict):
    for request, kind, _ in BAD.values():
        with pytest.raises(kind):
            _call(strict, request)
    assert len(strict.detect(PICTURE, ["cat"])) == 1


def test_a_refusal_in_the_words_of_google_rpc(strict):
    with pytest.raises(grpc.RpcError) as caught:
        PerceptionServiceStub(strict._channel).DetectObjects(_detect(score_threshold=2, request_id="mine"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    info, bad = ErrorInfo(), BadRequest()
    first, second = rpc_status.from_call(caught.value).details
    assert first.Unpack(info)
    assert second.Unpack(bad)
    assert (info.reason, info.domain) == ("INVALID_PARAMETER", "ovperception.dev")
    assert info.metadata["request_id"] == "mine"
    assert bad.field_violations[0].field == "score_threshold"


def test_a_long_refusal_fits_the_trailers(strict):
    with pytest.raises(UnknownModel) as caught:
        _call(strict, _detect(model="模" * 100_000))
    assert "模" in caught.value.got


def test_a_task_the_model_cannot_do(serve, connect):
    model = FakeModel()
    model.tasks = frozenset({"detect"})
    with pytest.raises(Unsupported, match="semantic"):
        connect(serve(model)).semantic(PICTURE, ["cat"])


def test_a_bug_leaves_no_trace_but_in_the_log(serve, connect, caplog):
    model = FakeModel()

    def broken(texts):
        raise ZeroDivisionError("secret")

    model.embed_text = broken
    with pytest.raises(OVPError, match="its log says why") as caught:
        connect(serve(model)).embed_text(["a"])
    assert type(caught.value) is OVPError
    assert "secret" not in str(caught.value)
    assert "secret" in caplog.text


def test_a_poisoned_image_fails_alone(serve, connect, model):
    server = serve(model)
    poison = PICTURE.copy()
    poison[0, 0, 0] = POISON
    model.hold()
    answers = {}

    def ask(index, picture):
        try:
            answers[index] = len(connect(server).detect(picture, ["cat"]))
        except InvalidImage as error:
            answers[index] = error.what

    pictures = [PICTURE, PICTURE, poison, PICTURE]
    threads = [threading.Thread(target=ask, args=row) for row in enumerate(pictures)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    model.release()
    for thread in threads:
        thread.join(20)
    assert answers == {0: 1, 1: 1, 2: "poison", 3: 1}


def test_a_full_server_refuses_at_once(serve, connect, model):
    server = serve(model, max_requests=2)
    model.hold()
    threads = [
        threading.Thread(target=connect(server).detect, args=(PICTURE, ["cat"]), daemon=True)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    _wait_for(lambda: server._engine.admission._used["requests"] == 2)
    started = time.monotonic()
    with pytest.raises(ResourceExhausted, match="too many requests") as caught:
        connect(server).detect(PICTURE, ["cat"])
    assert time.monotonic() - started < 1
    assert "Try again" in caught.value.mend
    with grpc.insecure_channel(server.address) as channel:  # health answers though all is busy
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as raised:
            PerceptionServiceStub(channel).DetectObjects(_detect())
    retry = RetryInfo()
    assert any(detail.Unpack(retry) for detail in rpc_status.from_call(raised.value).details)
    model.release()
    for thread in threads:
        thread.join(20)
    assert connect(server).detect(PICTURE, ["cat"])
    assert server._engine.admission._used == {"requests": 0, "bytes": 0, "pixels": 0}


def test_pixels_and_bytes_are_bounded_too(serve, connect, model):
    server = serve(model, max_pixels=2000, max_queued_pixels=3000)
    model.hold()
    thread = threading.Thread(target=connect(server).detect, args=(PICTURE, ["cat"]), daemon=True)
    thread.start()
    _wait_for(lambda: server._engine.admission._used["pixels"] == 2000)
    with pytest.raises(ResourceExhausted, match="too many pixels"):
        connect(server).detect(PICTURE, ["cat"])
    model.release()
    thread.join(20)


def test_a_deadline_ends_the_wait(serve, connect, model):
    server = serve(model)
    model.hold()
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        connect(server, timeout_s=0.3).detect(PICTURE, ["cat"])
    assert time.monotonic() - started < 2
    model.release()
    _wait_for(lambda: server._engine.admission._used["requests"] == 0)
    assert connect(server).detect(PICTURE, ["cat"])


def test_the_server_has_a_deadline_of_its_own(serve, connect, model):
    server = serve(model, max_wait_s=0.2)
    model.hold()
    with pytest.raises(DeadlineExceeded, match="not ready in time"):
        connect(server).detect(PICTURE, ["cat"])
    model.release()


def test_what_waits_is_dropped_when_its_caller_leaves(serve, connect, model):
    server = serve(model)
    stub = PerceptionServiceStub(grpc.insecure_channel(server.address))
    model.hold()
    busy = stub.DetectObjects.future(_detect())
    assert model.busy.wait(10)
    before = len(model.batches)
    waiting = [stub.DetectObjects.future(_detect()) for _ in range(5)]
    _wait_for(lambda: len(server._engine.worker._turns._images) == 5)
    for call in waiting:
        call.cancel()
    _wait_for(lambda: server._engine.admission._used["requests"] == 1)
    model.release()
    assert busy.result(10).info.timing.batch_size == 1
    assert len(model.batches) == before + 1
    assert connect(server).detect(PICTURE, ["cat"])


def test_a_storm_of_cancellations_leaves_no_slot_taken(serve, connect, model):
    server = serve(model)
    stub = PerceptionServiceStub(grpc.insecure_channel(server.address))
    rng = np.random.default_rng(1)
    calls = []
    for _ in range(300):
        calls.append(stub.DetectObjects.future(_detect()))
        if rng.random() < 0.7:
            calls[rng.integers(len(calls))].cancel()
    for call in calls:
        call.cancel()
    _wait_for(lambda: server._engine.admission._used["requests"] == 0)
    assert connect(server).detect(PICTURE, ["cat"])


def test_a_question_goes_before_waiting_images(serve, connect, model):
    server = serve(model)
    scene = connect(server).encode(PICTURE)
    model.hold()
    order = []

    def ask(name, question):
        question()
        order.append(name)

    threads = [threading.Thread(target=ask, args=("first", lambda: connect(server).encode(PICTURE)))]
    threads[0].start()
    assert model.busy.wait(10)
    small = PICTURE[:8]  # of another network size, so that it is no part of the first batch
    threads.append(threading.Thread(target=ask, args=("image", lambda: connect(server).encode(small))))
    threads[1].start()
    _wait_for(lambda: len(server._engine.worker._turns._images) == 1)
    threads.append(threading.Thread(target=ask, args=("question", lambda: scene.detect(["cat"]))))
    threads[2].start()
    _wait_for(lambda: len(server._engine.worker._turns._questions) == 1)
    taken = []
    take = server._engine.worker._turns.take
    server._engine.worker._turns.take = lambda: taken.append(take()) or taken[-1]
    model.release()
    for thread in threads:
        thread.join(20)
    kinds = [type(work).__name__ for work in taken if work]
    assert kinds == ["QuestionJob", "list"]


def test_too_large_a_message(serve, connect):
    server = serve(max_message_bytes=100_000)
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    with pytest.raises(ResourceExhausted, match="larger than"):
        connect(server).detect(noise, ["cat"])
    assert connect(server).detect(PICTURE, ["cat"])


def test_a_port_in_use(serve):
    server = serve()
    with pytest.raises(Unavailable, match="cannot listen") as caught:
        serve(port=server.port)
    assert "--port 0" in caught.value.mend


def test_draining_lets_work_end_and_refuses_the_rest(serve, connect, model):
    server = serve(model)
    client = connect(server)
    late = connect(server)
    late.server_info()
    model.hold()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.detect(PICTURE, ["cat"])))
    thread.start()
    assert model.busy.wait(10)
    stopping = threading.Thread(target=server.stop, args=(10,))
    stopping.start()
    _wait_for(lambda: server._engine.admission._closed)
    with pytest.raises(Unavailable, match="shutting down"):
        late.detect(PICTURE, ["cat"])
    model.release()
    thread.join(10)
    stopping.join(10)
    assert len(answers[0]) == 1
    with pytest.raises(Unavailable, match="cannot be reached"):
        late.server_info()


def test_stopping_ends_the_threads(serve):
    server = serve()
    server.stop(0)
    server.stop(0)
    assert not server._engine.worker._thread.is_alive()


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": -1},
        {"port": 70000},
        {"max_pixels": 0},
        {"max_requests": 0},
        {"kept_ttl_s": 0},
        {"max_kept_bytes": -1},
        {"max_queued_bytes": 1},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(InvalidParameter):
        ServerConfig(**wrong)


def test_models_are_checked():
    with pytest.raises(InvalidParameter, match="at least one model"):
        Server([])
    with pytest.raises(InvalidParameter, match="name of its own"):
        Server([FakeModel(), FakeModel()])


def _wait_for(condition, timeout_s=10):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
