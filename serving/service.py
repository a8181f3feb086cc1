"""The methods of `PerceptionService` and `ModelService`: check, ask, answer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypedDict

import grpc
import numpy as np
from numpy.typing import NDArray

import ovperception
from ovperception.errors import (
    InvalidParameter,
    InvalidRegions,
    ResourceExhausted,
    UnknownModel,
    Unsupported,
)
from ovperception.head import Task
from ovperception.structures import Detections
from ovperception.v1 import model_service_pb2, results_pb2
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.model_service_pb2_grpc import ModelServiceServicer
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceServicer
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.vocabulary import Vocabulary
from ovperception.wire import (
    detections_message,
    embeddings_message,
    float_map_message,
    panoptic_message,
    semantic_message,
)
from serving import requests
from serving.engine import Call, Engine
from serving.models import ServedScene

__all__ = ["ModelService", "PerceptionService"]


class _DetectOptions(TypedDict):
    score_threshold: float | None
    max_detections: int | None


class _InstanceRequest(Protocol):
    """What DetectObjectsRequest and SegmentImageRequest share."""

    score_threshold: float
    max_detections: int

    def HasField(self, field_name: str) -> bool: ...


class PerceptionService(PerceptionServiceServicer):
    """Questions about images.

    Args:
        engine: Runs them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def DetectObjects(
        self, request: pb.DetectObjectsRequest, context: grpc.ServicerContext
    ) -> pb.DetectObjectsResponse:
        """Find the objects that the words name."""
        model = self._engine.models.get(request.model, "detect")
        words = self._words(request.vocabulary)
        options = _detect_options(request)
        overlap = _threshold(request, "nms_iou_threshold")
        masks = request.include_masks if request.HasField("include_masks") else True
        regions = _regions(request, self._engine.config.max_texts)
        with self._engine.call(model, request.request_id, request.ByteSize(), context) as call:
            scene = call.see(request.image, keep=request.keep_image)
            with _fields_of_regions():
                found = call.ask(
                    lambda: scene.detect(
                        words, boxes=regions, **options, nms_iou_threshold=overlap, masks=masks
                    )
                )
            with call.encoding():
                objects = detections_message(found)
            info = call.info(words, truncated=_truncated(found, options))
            reply = pb.DetectObjectsResponse(info=info, objects=objects)
            reply.MergeFromString(_classes(words))
            return reply

    def SegmentImage(
        self, request: pb.SegmentImageRequest, context: grpc.ServicerContext
    ) -> pb.SegmentImageResponse:
        """Give every pixel a class or a segment, or every object a mask."""
        if request.task not in _SEGMENTATIONS:
            known = " or ".join(map(pb.SegmentationTask.Name, _SEGMENTATIONS))
            raise InvalidParameter("No segmentation task", field="task", expected=known, got=request.task)
        task, answer = _SEGMENTATIONS[request.task]
        model = self._engine.models.get(request.model, task)
        words = self._words(request.vocabulary)
        options = _detect_options(request)
        with self._engine.call(model, request.request_id, request.ByteSize(), context) as call:
            scene = call.see(request.image, keep=request.keep_image)
            reply = answer(call, scene, words, request, options)
            reply.info.CopyFrom(call.info(words, truncated=reply.info.truncated))
            reply.MergeFromString(_classes(words))
            return reply

    def ComputeHeatmap(
        self, request: pb.ComputeHeatmapRequest, context: grpc.ServicerContext
    ) -> pb.ComputeHeatmapResponse:
        """Tell how well each pixel fits one text."""
        model = self._engine.models.get(request.model)
        text = requests.text(request.text, "text")
        with self._engine.call(model, request.request_id, request.ByteSize(), context) as call:
            scene = call.see(request.image, keep=request.keep_image)
            heat = call.ask(lambda: scene.heatmap(text))
            with call.encoding():
                heatmap = float_map_message(heat)
            return pb.ComputeHeatmapResponse(info=call.info(), heatmap=heatmap)

    def EncodeImage(
        self, request: pb.EncodeImageRequest, context: grpc.ServicerContext
    ) -> pb.EncodeImageResponse:
        """Encode an image and keep it."""
        model = self._engine.models.get(request.model)
        with self._engine.call(model, request.request_id, request.ByteSize(), context) as call:
            call.see(request.image, keep=True)
            info = call.info()
            if not info.image.image_id:
                raise ResourceExhausted("The server cannot keep the image", got=" ".join(call.warnings))
            return pb.EncodeImageResponse(info=info)

    def ForgetImage(
        self, request: pb.ForgetImageRequest, context: grpc.ServicerContext
    ) -> pb.ForgetImageResponse:
        """Forget a kept image."""
        return pb.ForgetImageResponse(forgotten=self._engine.kept.forget(request.image_id))

    def EmbedText(self, request: pb.EmbedTextRequest, context: grpc.ServicerContext) -> pb.EmbedTextResponse:
        """Embed texts."""
        model = self._engine.models.get(request.model)
        texts = requests.texts(request.texts, self._engine.config.max_texts)
        with self._engine.call(model, request.request_id, request.ByteSize(), context) as call:
            vectors = call.ask(lambda: model.embed_text(texts))
            return pb.EmbedTextResponse(embeddings=embeddings_message(vectors), info=call.info())

    def EmbedImage(
        self, request: pb.EmbedImageRequest, context: grpc.ServicerContext
    ) -> pb.EmbedImageResponse:
        """Embed a whole image."""
        model = self._engine.models.get(request.model)
        with self._engine.call(model, request.request_id, request.ByteSize(), context) as call:
            picture = call.decode(request.image)
            vector = call.ask(lambda: model.embed_image(picture))
            return pb.EmbedImageResponse(embedding=embeddings_message(vector[np.newaxis]), info=call.info())

    def EmbedRegions(
        self, request: pb.EmbedRegionsRequest, context: grpc.ServicerContext
    ) -> pb.EmbedRegionsResponse:
        """Embed boxes of an image."""
        model = self._engine.models.get(request.model)
        with self._engine.call(model, request.request_id, request.ByteSize(), context) as call:
            scene = call.see(request.image, keep=request.keep_image)
            boxes = requests.boxes(request.boxes, self._engine.config.max_texts)
            vectors = call.ask(lambda: scene.embed_regions(boxes))
            return pb.EmbedRegionsResponse(embeddings=embeddings_message(vectors), info=call.info())

    def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> pb.GetServerInfoResponse:
        """Tell what the server serves, and its limits."""
        config = self._engine.config
        limits = pb.ServerLimits(
            max_message_bytes=config.max_message_bytes,
            max_pixels=config.max_pixels,
            max_classes=config.max_classes,
            max_texts=config.max_texts,
            max_requests=config.max_requests,
            max_kept_bytes=config.max_kept_bytes,
        )
        limits.kept_ttl.FromNanoseconds(int(1e9 * config.kept_ttl_s))
        return pb.GetServerInfoResponse(
            version=ovperception.__version__,
            models=self._engine.models.infos.values(),
            limits=limits,
            image_formats=requests.IMAGE_FORMATS,
            pixel_formats=requests.PIXEL_FORMATS,
            label_encodings=results_pb2.LabelEncoding.keys()[1:],
        )

    def _words(self, spec: VocabularySpec) -> Vocabulary:
        return requests.vocabulary(spec, self._engine.config.max_classes, self._engine.config.max_texts)


def _semantic(
    call: Call,
    scene: ServedScene,
    words: Vocabulary,
    request: pb.SegmentImageRequest,
    options: _DetectOptions,
) -> pb.SegmentImageResponse:
    labels = call.ask(lambda: scene.semantic(words, score_threshold=options["score_threshold"]))
    with call.encoding():
        message = semantic_message(labels, request.label_encoding, scores=request.include_scores)
    return pb.SegmentImageResponse(semantic=message)


def _instances(
    call: Call,
    scene: ServedScene,
    words: Vocabulary,
    request: pb.SegmentImageRequest,
    options: _DetectOptions,
) -> pb.SegmentImageResponse:
    found = call.ask(lambda: scene.detect(words, **options, masks=True))
    if found.masks is None:
        raise Unsupported(f"Model {call.model.name} gives boxes without masks", field="task")
    with call.encoding():
        message = detections_message(found)
    info = results_pb2.ResultInfo(truncated=_truncated(found, options))
    return pb.SegmentImageResponse(instances=message, info=info)


def _panoptic(
    call: Call,
    scene: ServedScene,
    words: Vocabulary,
    request: pb.SegmentImageRequest,
    options: _DetectOptions,
) -> pb.SegmentImageResponse:
    segments = call.ask(lambda: scene.panoptic(words, score_threshold=options["score_threshold"]))
    with call.encoding():
        message = panoptic_message(segments)
    return pb.SegmentImageResponse(panoptic=message)


_Answer = Callable[
    [Call, ServedScene, Vocabulary, pb.SegmentImageRequest, _DetectOptions], pb.SegmentImageResponse
]
_SEGMENTATIONS: dict[int, tuple[Task, _Answer]] = {
    pb.SEGMENTATION_TASK_SEMANTIC: ("semantic", _semantic),
    pb.SEGMENTATION_TASK_INSTANCE: ("detect", _instances),
    pb.SEGMENTATION_TASK_PANOPTIC: ("panoptic", _panoptic),
}


_class_lists: OrderedDict[str, bytes] = OrderedDict()


def _classes(words: Vocabulary) -> bytes:
    """The ``classes`` of a reply, as bytes to merge: DetectObjects and SegmentImage have them at one number.

    Kept for the next frame: to build a thousand of them takes longer than all else about a reply.
    """
    found = _class_lists.get(words.content_hash)
    if found is None:
        infos = [results_pb2.ClassInfo(name=entry.name, is_thing=entry.is_thing) for entry in words.classes]
        found = pb.DetectObjectsResponse(classes=infos).SerializeToString()
        _class_lists[words.content_hash] = found
        while len(_class_lists) > 16:
            _class_lists.popitem(last=False)
    return found


def _detect_options(request: _InstanceRequest) -> _DetectOptions:
    limited = request.HasField("max_detections")
    return {
        "score_threshold": _threshold(request, "score_threshold"),
        "max_detections": requests.max_detections(request.max_detections) if limited else None,
    }


def _regions(request: pb.DetectObjectsRequest, limit: int) -> NDArray[np.float32] | None:
    if not request.HasField("regions"):
        return None
    with _fields_of_regions():
        return requests.boxes(request.regions.boxes, limit)


@contextmanager
def _fields_of_regions() -> Iterator[None]:
    """Names boxes as this request spells them."""
    try:
        yield
    except (InvalidRegions, Unsupported) as error:
        if error.field.startswith("boxes"):
            error.field = f"regions.{error.field}"
        raise


def _threshold(request: _InstanceRequest, field: str) -> float | None:
    return requests.fraction(getattr(request, field), field) if request.HasField(field) else None


def _truncated(found: Detections, options: _DetectOptions) -> bool:
    limit = options["max_detections"]
    return limit is not None and len(found.scores) >= limit


class ModelService(ModelServiceServicer):
    """The models that are loaded.

    Args:
        engine: Has them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> model_service_pb2.ListModelsResponse:
        """List them."""
        return model_service_pb2.ListModelsResponse(models=self._engine.models.infos.values())

    def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> model_service_pb2.GetModelResponse:
        """Tell about one."""
        try:
            name = self._engine.models.get(request.name).name
        except UnknownModel as error:
            error.field = "name"
            raise
        return model_service_pb2.GetModelResponse(model=self._engine.models.infos[name])
