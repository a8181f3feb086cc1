"""The two built-in models behind one server: one backbone in memory, one pass for both, their own answers."""

import numpy as np
import pytest

import ovperception
from ovperception.client import Client
from ovperception.datasets import scenes
from ovperception.v1 import perceive_pb2 as pb
from ovperception.v1.image_pb2 import Image
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary, VocabularySpec
from serving import Server, ServerConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models():
    return ovperception.load("tiny"), ovperception.load("tiny-regionclip")


@pytest.fixture(scope="module")
def server(models):
    with Server(models, ServerConfig(port=0)) as server:
        yield server


def test_the_backbone_is_in_memory_once(models, server):
    first, second = models
    assert second.backbone is first.backbone


def test_boxes_of_one_and_a_map_of_the_other_in_one_pass(models, server):
    picture = scenes.scene("val", 3, (128, 160)).image
    raw = {"data": picture.tobytes(), "width": 160, "height": 128, "format": "PIXEL_FORMAT_RGB8"}
    item = pb.BatchItem(image=Image(raw=raw))
    outputs = [
        pb.PerceiveOutput(model="tiny-regionclip", detect=pb.DetectOutput(include_masks=False)),
        pb.PerceiveOutput(model="tiny", semantic=pb.SemanticOutput()),
    ]
    words = VocabularySpec(inline=Vocabulary(classes=[{"name": "rooster"}, {"name": "grass"}]))
    request = pb.BatchPerceiveRequest(model="tiny", items=[item], outputs=outputs, vocabulary=words)
    before = server.engine.worker.counters.passes
    with Client(server.address, timeout_s=120) as client:
        reply = PerceptionServiceStub(client._channel).BatchPerceive(request, timeout=120)
    (result,) = [item.result for item in reply.items]
    assert [answer.model for answer in result.answers] == ["tiny-regionclip", "tiny"]
    assert (result.info.timing.backbone_passes, result.info.timing.batch_size) == (1, 1)
    assert server.engine.worker.counters.passes == before + 1


def test_a_kept_image_is_asked_by_both(models, server):
    picture = scenes.scene("val", 3, (128, 160)).image
    with Client(server.address, timeout_s=120) as client, client.encode(picture) as scene:
        kept = server.engine.kept
        before = server.engine.worker.counters.passes
        (image_id,) = kept._kept
        reply = PerceptionServiceStub(client._channel).DetectObjects(
            ovperception.v1.perception_service_pb2.DetectObjectsRequest(
                model="tiny-regionclip",
                image=Image(image_id=image_id),
                vocabulary=VocabularySpec(inline=Vocabulary(classes=[{"name": "rooster"}])),
                include_masks=False,
                score_threshold=0,
            ),
            timeout=120,
        )
        assert scene.detect(["rooster"], masks=False) is not None
    assert server.engine.worker.counters.passes == before
    assert reply.info.timing.backbone_passes == 0
    local = models[1].encode(picture).detect(["rooster"], masks=False, score_threshold=0)
    scores = [found.score for found in reply.objects.detections]
    np.testing.assert_allclose(scores, local.scores, atol=1e-3)
