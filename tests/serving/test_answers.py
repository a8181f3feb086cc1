"""A real server and a real client: every answer is the local one."""

import threading
import time

import cv2
import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from ovperception.client import Client
from ovperception.errors import UnknownImage
from ovperception.images import encode_png
from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary as VocabularyMessage
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.vocabulary import Vocabulary, VocabularyClass
from tests.serving.fake_model import FakeModel

WORDS = ["cat", "dog|hound", "traffic light"]


def test_served_answers_equal_local_ones(client, model, picture):
    local = model.encode(picture)
    assert client.detect(picture, WORDS).to_json() == local.detect(WORDS).to_json()
    assert client.detect(picture, WORDS).classes == ("cat", "dog", "traffic light")
    served = client.semantic(picture, WORDS, scores=True)
    np.testing.assert_array_equal(served.labels, local.semantic(WORDS).labels)
    np.testing.assert_array_equal(served.scores, local.semantic(WORDS).scores)
    assert (served.labels == -1).any()
    panoptic = client.panoptic(picture, WORDS)
    np.testing.assert_array_equal(panoptic.ids, local.panoptic(WORDS).ids)
    assert panoptic.segments == local.panoptic(WORDS).segments
    np.testing.assert_array_equal(client.heatmap(picture, "cat"), local.heatmap("cat"))
    boxes = np.array([[1, 2, 30.5, 40], [0, 0, 5, 5]], np.float32)
    for given in (boxes, boxes[:0]):
        found = client.detect(picture, WORDS, boxes=given)
        assert found.to_json() == local.detect(WORDS, boxes=given).to_json()
        np.testing.assert_array_equal(found.boxes, given)
    np.testing.assert_array_equal(client.embed_regions(picture, boxes), local.embed_regions(boxes))
    np.testing.assert_array_equal(client.embed_text(["a", "b"]), model.embed_text(["a", "b"]))
    np.testing.assert_array_equal(client.embed_image(picture), model.embed_image(picture))


def test_options_reach_the_model(client, model, picture):
    local = model.encode(picture)
    few = client.detect(picture, WORDS, max_detections=1, masks=False)
    assert few.to_json() == local.detect(WORDS, max_detections=1, masks=False).to_json()
    assert client.last_reply.truncated
    scores = local.detect(WORDS).scores
    least = float(scores[1])
    assert len(client.detect(picture, WORDS, score_threshold=least)) == 2
    assert not client.last_reply.truncated
    assert len(client.detect(picture, WORDS, score_threshold=1.0)) == 0


def test_a_vocabulary_arrives_whole(client, model, picture):
    words = Vocabulary(
        classes=(
            VocabularyClass(name="cat", synonyms=("kitty", "cat"), is_thing=False, score_threshold=0.3),
            VocabularyClass(name="a|b", negatives=("c",)),
        ),
        templates=("a photo of {}",),
        name="mine",
    )
    assert client.panoptic(picture, words).segments == model.encode(picture).panoptic(words).segments
    assert client.last_reply.vocabulary_hash == words.content_hash


def test_a_named_vocabulary(client, picture):
    stub = PerceptionServiceStub(grpc.insecure_channel(client.address))
    image = im.Image(encoded=encode_png(picture))
    spec = VocabularySpec(name="coco_panoptic_133")
    reply = stub.DetectObjects(pb.DetectObjectsRequest(image=image, vocabulary=spec))
    assert len(reply.classes) == 133
    assert {entry.is_thing for entry in reply.classes} == {True, False}


def test_instances_and_echoes(client, model, picture):
    stub = PerceptionServiceStub(grpc.insecure_channel(client.address))
    image = im.Image(encoded=encode_png(picture), capture_time=Timestamp(seconds=5, nanos=7), frame_id="left")
    words = VocabularySpec(inline=VocabularyMessage(classes=[{"name": "cat"}, {"name": "sky"}]))
    reply = stub.SegmentImage(
        pb.SegmentImageRequest(
            request_id="mine", image=image, vocabulary=words, task="SEGMENTATION_TASK_INSTANCE"
        )
    )
    assert len(reply.instances.detections) == 2
    assert reply.instances.detections[0].mask.rle.height == 48
    assert (reply.info.request_id, reply.info.image.frame_id) == ("mine", "left")
    assert reply.info.image.capture_time == image.capture_time
    assert [entry.is_thing for entry in reply.classes] == [True, False]
    assert (reply.info.image.width, reply.info.image.height) == (70, 48)
    timing = reply.info.timing
    assert (timing.trunk_ms, timing.head_ms, timing.batch_size) == (2.0, 3.0, 1)
    assert timing.total_ms >= timing.decode_ms + timing.classify_ms


@pytest.mark.parametrize("transport", ["raw", "png"])
@pytest.mark.parametrize("form", ["rgb", "grey", "view", "pillow", "path", "bytes"])
def test_every_form_of_picture(serve, connect, model, picture, tmp_path, transport, form):
    client = connect(serve(model), transport=transport)
    source = {"rgb": picture, "grey": picture[..., 0], "view": picture[::2, ::-1]}.get(form)
    if form == "pillow":
        source = pytest.importorskip("PIL.Image").fromarray(picture)
    elif form == "path":
        source = tmp_path / "a.png"
        source.write_bytes(encode_png(picture))
    elif form == "bytes":
        source = encode_png(picture)
    assert client.detect(source, WORDS).to_json() == model.encode(source).detect(WORDS).to_json()


def _raw(picture, code, pixel_format, pad):
    data = picture if code is None else cv2.cvtColor(picture, code)
    rows = data.reshape(data.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, pad)))
    height, width = picture.shape[:2]
    stride = padded.shape[1] if pad else 0
    raw = {"data": padded.tobytes(), "width": width, "height": height, "row_stride": stride}
    return im.Image(raw={**raw, "format": pixel_format})


@pytest.mark.parametrize("pad", [0, 13])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("RGB8", None),
        ("BGR8", cv2.COLOR_RGB2BGR),
        ("RGBA8", cv2.COLOR_RGB2RGBA),
        ("BGRA8", cv2.COLOR_RGB2BGRA),
        ("MONO8", cv2.COLOR_RGB2GRAY),
    ],
)
def test_raw_formats(client, model, picture, name, code, pad):
    stub = PerceptionServiceStub(grpc.insecure_channel(client.address))
    image = _raw(picture, code, f"PIXEL_FORMAT_{name}", pad)
    vector = np.frombuffer(stub.EmbedImage(pb.EmbedImageRequest(image=image)).embedding.data, "<f4")
    expected = cv2.cvtColor(picture, code) if name == "MONO8" else picture
    np.testing.assert_array_equal(vector, model.embed_image(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_policy(client, picture, orientation):
    image_module = pytest.importorskip("PIL.Image")
    exif = image_module.Exif()
    exif[0x0112] = orientation
    import io

    file = io.BytesIO()
    image_module.fromarray(picture).save(file, "png", exif=exif)
    stub = PerceptionServiceStub(grpc.insecure_channel(client.address))
    spec = VocabularySpec(inline=VocabularyMessage(classes=[{"name": f"w{i}"} for i in range(200)]))

    def labels(policy):
        image = im.Image(encoded=file.getvalue(), exif_orientation=policy)
        reply = stub.SegmentImage(
            pb.SegmentImageRequest(
                image=image,
                vocabulary=spec,
                task="SEGMENTATION_TASK_SEMANTIC",
                label_encoding="LABEL_ENCODING_RAW16",
            )
        ).semantic
        return np.frombuffer(reply.data, "<u2").reshape(reply.height, reply.width).astype(int)

    stored = picture[..., 0].astype(int) % 201 - 1
    ignored = labels("EXIF_POLICY_IGNORE")
    np.testing.assert_array_equal(ignored, np.where(stored < 0, 65535, stored))
    applied = labels("EXIF_POLICY_UNSPECIFIED")
    assert applied.shape == (stored.shape if orientation < 5 else stored.shape[::-1])
    np.testing.assert_array_equal(applied, labels("EXIF_POLICY_APPLY"))


@pytest.mark.parametrize("encoding", ["UNSPECIFIED", "PNG8", "PNG16", "RAW8", "RAW16"])
def test_label_encodings_agree(client, model, picture, encoding):
    from ovperception.wire import read_semantic

    stub = PerceptionServiceStub(grpc.insecure_channel(client.address))
    spec = VocabularySpec(inline=VocabularyMessage(classes=[{"name": "a"}, {"name": "b"}, {"name": "c"}]))
    reply = stub.SegmentImage(
        pb.SegmentImageRequest(
            image=im.Image(encoded=encode_png(picture)),
            vocabulary=spec,
            task="SEGMENTATION_TASK_SEMANTIC",
            label_encoding=f"LABEL_ENCODING_{encoding}",
        )
    )
    local = model.encode(picture).semantic(["a", "b", "c"])
    np.testing.assert_array_equal(read_semantic(reply.semantic, "abc").labels, local.labels)
    assert list(reply.semantic.present_class_indices) == list(local.present)


def test_more_than_255_classes(client, model, picture):
    words = [f"w{i}" for i in range(300)]
    local = model.encode(picture).semantic(words)
    np.testing.assert_array_equal(client.semantic(picture, words).labels, local.labels)


def test_encode_once_ask_many(client, model, picture):
    before = len(model.batches)
    with client.encode(picture) as scene:
        assert scene.size == (48, 70)
        assert scene.detect(WORDS).to_json() == model.encode(picture).detect(WORDS).to_json()
        assert client.last_timing["trunk"] == 0
        assert client.last_reply.batch_size == 0
        scene.panoptic(["a", "b"])
        scene.heatmap("x")
    assert len(model.batches) == before + 2  # one of them the local one
    stub = PerceptionServiceStub(grpc.insecure_channel(client.address))
    request = pb.ComputeHeatmapRequest(image=im.Image(image_id=scene.image_id or "images/gone"), text="x")
    with pytest.raises(grpc.RpcError) as caught:
        stub.ComputeHeatmap(request)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_dropped_scene_comes_back_by_itself(serve, connect, picture):
    model = FakeModel(scene_bytes=600)
    server = serve(model, max_kept_bytes=1000)
    client = connect(server)
    first = client.encode(picture)
    client.encode(picture[:20])  # takes first's place
    count = len(model.batches)
    assert first.detect(WORDS).to_json() == model.encode(picture).detect(WORDS).to_json()
    assert first.size == (48, 70)
    first.detect(WORDS)
    assert len(model.batches) == count + 2  # sent again once; the other is the local one
    with pytest.raises(UnknownImage):
        server._engine.kept.get("images/never")


def test_a_scene_too_large_to_keep(serve, connect, picture):
    from ovperception.errors import ResourceExhausted

    client = connect(serve(FakeModel(scene_bytes=2000), max_kept_bytes=1000))
    with pytest.raises(ResourceExhausted, match="cannot keep"):
        client.encode(picture)
    assert len(client.detect(picture, WORDS)) == 3


def test_several_models(serve, connect, picture):
    server = serve(FakeModel("one"), FakeModel("two"))
    client, other = connect(server), connect(server, model="two")
    assert [card.name for card in client.models()] == ["one", "two"]
    client.detect(picture, WORDS)
    other.detect(picture, WORDS)
    assert client.last_reply.model.name == "one"
    assert other.last_reply.model.name == "two"
    assert client.server_info().models[0].tasks == {"detect", "semantic", "panoptic"}
    assert client.server_info().max_classes == 4096


def test_many_clients_at_once_share_batches_and_one_thread(serve, connect, model, picture):
    server = serve(model)
    expected = model.encode(picture)
    model.hold()
    failures = []

    def ask(index):
        client = connect(server)
        words = [*WORDS, f"word {index}"]
        for _ in range(3):
            if client.detect(picture, words).to_json() != expected.detect(words).to_json():
                failures.append(index)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    model.release()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert max(map(len, model.batches)) > 1
    assert max(map(len, model.batches)) <= 8
    assert len(model.threads - {threading.get_ident()}) == 1


def test_health_and_reflection(serve, picture):
    server = serve()
    channel = grpc.insecure_channel(server.address)
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", "ovperception.v1.PerceptionService"):
        status = stub.Check(health_pb2.HealthCheckRequest(service=name)).status
        assert status == health_pb2.HealthCheckResponse.SERVING
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert "ovperception.v1.PerceptionService" in services
    assert "ovperception.v1.ModelService" in services


def test_not_serving_until_warm(picture):
    from serving import Server, ServerConfig

    model = FakeModel()
    model.hold()
    server = Server([model], ServerConfig(port=0))
    thread = threading.Thread(target=server.start)
    thread.start()
    assert model.busy.wait(10)
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert (
            stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        )
        model.release()
        thread.join(10)
        assert stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    server.stop(0)


def test_a_client_of_another_machine_gets_png(picture):
    from ovperception.client.pictures import picture_message

    large = np.zeros((400, 400, 3), np.uint8)
    message = picture_message(large, "auto", local=False, max_bytes=2**25)
    assert message.encoded.startswith(b"\x89PNG")
    assert picture_message(large, "auto", local=True, max_bytes=2**25).raw.width == 400
    assert picture_message(large, "auto", local=True, max_bytes=2**16).encoded
    assert picture_message(large, "jpeg", local=True, max_bytes=2**25).encoded.startswith(b"\xff\xd8")
    assert isinstance(Client("somewhere:1").last_timing, dict)
