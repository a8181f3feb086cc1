"""What needs no picture to be refused is refused before the picture is decoded.

The picture here is broken behind its header: whoever decodes it complains of the picture.
"""

import math

import grpc
import numpy as np
import pytest
from grpc_status import rpc_status

from ovperception.errors import InvalidImage, InvalidParameter, InvalidRegions, Unsupported
from ovperception.head_choice import cannot_answer
from ovperception.images import encode_png
from ovperception.v1 import image_pb2 as im
from ovperception.v1 import perceive_pb2 as pp
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.vocabulary_pb2 import Vocabulary, VocabularySpec
from ovperception.wire_errors import error_of
from tests.serving.fake_model import FakeModel

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
PNG = encode_png(PICTURE)
BROKEN = im.Image(encoded=PNG[:100] + bytes(300) + PNG[400:])
CAT = VocabularySpec(inline=Vocabulary(classes=[{"name": "cat"}]))
BOX = {"x_min": 1, "y_min": 1, "x_max": 9, "y_max": 9}


def _regions(**changes):
    return pb.Regions(boxes=[BOX, {**BOX, **changes}])


def _box_list(**changes):
    return pp.BoxList(boxes=_regions(**changes).boxes)


def _detect(**rest):
    return pb.DetectObjectsRequest(image=BROKEN, vocabulary=CAT, **rest)


def _segment(**rest):
    return pb.SegmentImageRequest(image=BROKEN, vocabulary=CAT, **rest)


EARLY = {
    "threshold NaN": (_detect(score_threshold=math.nan), InvalidParameter, "score_threshold"),
    "threshold of a map": (_segment(task=1, score_threshold=-1), InvalidParameter, "score_threshold"),
    "overlap": (_detect(nms_iou_threshold=1.5), InvalidParameter, "nms_iou_threshold"),
    "masks": (_detect(mask_encoding=77), InvalidParameter, "mask_encoding"),
    "task": (_segment(task=99), InvalidParameter, "task"),
    "labels": (_segment(task=1, label_encoding=77), InvalidParameter, "label_encoding"),
    "stride": (_segment(task=1, output_stride=65), InvalidParameter, "output_stride"),
    "box NaN": (_detect(regions=_regions(x_min=math.nan)), InvalidRegions, "regions.boxes[1]"),
    "box infinite": (_detect(regions=_regions(y_max=math.inf)), InvalidRegions, "regions.boxes[1]"),
    "box without area": (_detect(regions=_regions(x_max=1)), InvalidRegions, "regions.boxes[1]"),
    "box outside": (_detect(regions=_regions(x_min=50, x_max=60)), InvalidRegions, "regions.boxes[1]"),
    "embedded NaN": (
        pb.EmbedRegionsRequest(image=BROKEN, boxes=[{**BOX, "x_min": math.nan}]),
        InvalidRegions,
        "boxes[0]",
    ),
    "embedded outside": (
        pb.EmbedRegionsRequest(image=BROKEN, boxes=[{**BOX, "y_min": 40, "y_max": 41}]),
        InvalidRegions,
        "boxes[0]",
    ),
}
METHODS = {
    pb.DetectObjectsRequest: "DetectObjects",
    pb.SegmentImageRequest: "SegmentImage",
    pb.EmbedRegionsRequest: "EmbedRegions",
}


def _call(client, request):
    stub = PerceptionServiceStub(client._channel)
    return client.call(getattr(stub, METHODS[type(request)]), request)


def test_the_picture_is_refused_when_it_is_decoded(client):
    with pytest.raises(InvalidImage):
        _call(client, _detect())


@pytest.mark.parametrize("name", EARLY)
def test_it_is_refused_on_arrival(client, model, name):
    request, kind, field = EARLY[name]
    passes = len(model.batches)
    with pytest.raises(kind) as caught:
        _call(client, request)
    assert caught.value.field == field
    assert len(model.batches) == passes


def test_boxes_for_a_model_that_takes_none(serve, connect):
    model = FakeModel()
    model.takes_boxes = False
    client = connect(serve(model))
    with pytest.raises(Unsupported) as caught:
        _call(client, _detect(regions=pb.Regions(boxes=[BOX])))
    assert caught.value.field == "regions.boxes"


def test_tasks_that_a_model_has_not(serve, connect):
    model = FakeModel()
    model.tasks = frozenset({"semantic"})
    client = connect(serve(model))
    stub = PerceptionServiceStub(client._channel)
    for method, request, task in (
        (stub.DetectObjects, _detect(), "detect"),
        (stub.SegmentImage, _segment(task=pb.SEGMENTATION_TASK_INSTANCE), "detect"),
        (stub.SegmentImage, _segment(task=pb.SEGMENTATION_TASK_PANOPTIC), "panoptic"),
    ):
        passes = len(model.batches)
        with pytest.raises(Unsupported) as caught:
            client.call(method, request)
        assert str(caught.value) == str(cannot_answer("fake", task, ["semantic"]))
        assert len(model.batches) == passes


def test_masks_of_a_model_that_gives_boxes(serve, connect):
    model = FakeModel()
    model.makes_masks = False
    client = connect(serve(model))
    with pytest.raises(Unsupported, match="boxes without masks") as caught:
        _call(client, _segment(task=pb.SEGMENTATION_TASK_INSTANCE))
    assert caught.value.field == "task"
    assert "detect or panoptic or semantic" in str(caught.value)
    whole = pb.DetectObjectsRequest(image=im.Image(encoded=PNG), vocabulary=CAT, include_masks=True)
    assert _call(client, whole).objects  # where masks are but welcome, boxes are an answer


def test_boxes_on_a_server_that_is_busy(serve, connect):
    """The refusal does not wait for the pass of others."""
    model = FakeModel()
    model.takes_boxes = False
    client = connect(serve(model))
    model.hold()
    try:
        busy = PerceptionServiceStub(client._channel).DetectObjects.future(
            pb.DetectObjectsRequest(image=im.Image(encoded=PNG), vocabulary=CAT)
        )
        assert model.busy.wait(10)
        with pytest.raises(Unsupported):
            _call(client, _detect(regions=pb.Regions(boxes=[BOX])))
        assert not busy.done()
    finally:
        model.release()
    assert busy.result(10)


def test_an_item_of_a_batch(client):
    wrong = pp.PerceiveOutput(detect=pp.DetectOutput(regions=_box_list(x_min=50, x_max=60)))
    request = pp.BatchPerceiveRequest(vocabulary=CAT, items=[{"image": BROKEN, "outputs": [wrong]}])
    reply = client.call(PerceptionServiceStub(client._channel).BatchPerceive, request)
    error = error_of(reply.items[0].error)
    assert isinstance(error, InvalidRegions)
    assert error.field == "items[0].outputs[0].detect.regions.boxes[1]"


def test_the_configuration_of_a_stream(client):
    wrong = pp.PerceiveOutput(detect=pp.DetectOutput(regions=_box_list(x_min=math.nan)))
    config = pp.StreamPerceiveRequest(config=pp.StreamConfig(vocabulary=CAT, outputs=[wrong]))
    with pytest.raises(grpc.RpcError) as caught:
        list(PerceptionServiceStub(client._channel).StreamPerceive(iter([config])))
    error = error_of(rpc_status.from_call(caught.value))
    assert isinstance(error, InvalidRegions)
    assert error.field == "outputs[0].detect.regions.boxes[1]"


def test_a_box_outside_of_a_kept_image(client):
    scene = client.encode(PICTURE)
    request = pb.EmbedRegionsRequest(
        image=im.Image(image_id=scene.image_id), boxes=[{**BOX, "x_min": 60, "x_max": 70}]
    )
    with pytest.raises(InvalidRegions) as caught:
        _call(client, request)
    assert caught.value.field == "boxes[0]"
