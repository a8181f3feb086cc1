"""The methods of `PerceptionService`: check, ask, answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np

import ovperception
from ovperception.boxes import boxes_inside
from ovperception.errors import InvalidParameter, ResourceExhausted
from ovperception.head import Task
from ovperception.v1 import perceive_pb2, results_pb2
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceServicer
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.wire import embeddings_message
from ovperception.wire_masks import MASK_ENCODINGS
from serving import requests
from serving.engine import Engine
from serving.models import ServedModel
from serving.perceiving import Perceiver
from serving.pictures import IMAGE_FORMATS, PIXEL_FORMATS
from serving.questions import OUTPUTS, Question, detection, heatmap, panoptic, semantic
from serving.request_size import request_bytes
from serving.security import caller
from serving.streams import Streams
from serving.words import AskedWords, WordReader

__all__ = ["PerceptionService"]


class PerceptionService(PerceptionServiceServicer):
    """Questions about images.

    Args:
        engine: Runs them.
        words: Reads their words.
    """

    def __init__(self, engine: Engine, words: WordReader) -> None:
        self._engine = engine
        self._words = words
        self._perceiver = Perceiver(engine, words)
        self._streams = Streams(engine, self._perceiver)

    def DetectObjects(
        self, request: pb.DetectObjectsRequest, context: grpc.ServicerContext
    ) -> pb.DetectObjectsResponse:
        """Find the objects that the words name."""
        model = self._engine.models.get(request.model, "detect")
        words = self._read(request.vocabulary)
        question = detection(model, words, request, self._engine.config.max_texts)
        with self._engine.call(model, request.request_id, request_bytes(), context) as call:
            answer, truncated = question.answer_about(call, request.image, keep=request.keep_image)
            info = call.info(words.info(), truncated=truncated)
        reply = pb.DetectObjectsResponse(info=info, objects=answer.objects)
        reply.MergeFromString(words.class_list())
        return reply

    def SegmentImage(
        self, request: pb.SegmentImageRequest, context: grpc.ServicerContext
    ) -> pb.SegmentImageResponse:
        """Give every pixel a class or a segment, or every object a mask."""
        if request.task not in _SEGMENTATIONS:
            known = " or ".join(map(pb.SegmentationTask.Name, _SEGMENTATIONS))
            raise InvalidParameter("No segmentation task", field="task", expected=known, got=request.task)
        task, field, ask = _SEGMENTATIONS[request.task]
        model = self._engine.models.get(request.model, task)
        words = self._read(request.vocabulary)
        question = ask(model, words, request)
        with self._engine.call(model, request.request_id, request_bytes(), context) as call:
            answer, truncated = question.answer_about(call, request.image, keep=request.keep_image)
            info = call.info(words.info(), truncated=truncated)
        reply = pb.SegmentImageResponse(info=info)
        getattr(reply, field).CopyFrom(getattr(answer, answer.WhichOneof("answer") or ""))
        reply.MergeFromString(words.class_list())
        return reply

    def ComputeHeatmap(
        self, request: pb.ComputeHeatmapRequest, context: grpc.ServicerContext
    ) -> pb.ComputeHeatmapResponse:
        """Tell how well each pixel fits one text."""
        model = self._engine.models.get(request.model)
        question = heatmap(model, request.text)
        with self._engine.call(model, request.request_id, request_bytes(), context) as call:
            answer, _ = question.answer_about(call, request.image, keep=request.keep_image)
            return pb.ComputeHeatmapResponse(info=call.info(), heatmap=answer.heatmap)

    def BatchPerceive(
        self, request: perceive_pb2.BatchPerceiveRequest, context: grpc.ServicerContext
    ) -> perceive_pb2.BatchPerceiveResponse:
        """Answer several questions about each of several images."""
        return self._perceiver.batch(request, context)

    def StreamPerceive(
        self, request_iterator: Iterator[perceive_pb2.StreamPerceiveRequest], context: grpc.ServicerContext
    ) -> Iterator[perceive_pb2.StreamPerceiveResponse]:
        """Answer the same questions about frame after frame."""
        return self._streams.serve(request_iterator, context)

    def EncodeImage(
        self, request: pb.EncodeImageRequest, context: grpc.ServicerContext
    ) -> pb.EncodeImageResponse:
        """Encode an image and keep it."""
        model = self._engine.models.get(request.model)
        with self._engine.call(model, request.request_id, request_bytes(), context) as call:
            call.see(request.image, keep=True)
            info = call.info()
            if not info.image.image_id:
                raise ResourceExhausted("The server cannot keep the image", got=" ".join(call.warnings))
            return pb.EncodeImageResponse(info=info)

    def ForgetImage(
        self, request: pb.ForgetImageRequest, context: grpc.ServicerContext
    ) -> pb.ForgetImageResponse:
        """Forget a kept image."""
        return pb.ForgetImageResponse(forgotten=self._engine.forget(request.image_id, context))

    def EmbedText(self, request: pb.EmbedTextRequest, context: grpc.ServicerContext) -> pb.EmbedTextResponse:
        """Embed texts."""
        model = self._engine.models.get(request.model)
        texts = requests.texts(request.texts, self._engine.config.max_texts)
        with self._engine.call(model, request.request_id, request_bytes(), context) as call:
            vectors = call.ask(lambda: model.embed_text(texts))
            return pb.EmbedTextResponse(embeddings=embeddings_message(vectors), info=call.info())

    def EmbedImage(
        self, request: pb.EmbedImageRequest, context: grpc.ServicerContext
    ) -> pb.EmbedImageResponse:
        """Embed a whole image."""
        model = self._engine.models.get(request.model)
        with self._engine.call(model, request.request_id, request_bytes(), context) as call:
            picture = call.decode(request.image)
            vector = call.ask(lambda: model.embed_image(picture))
            return pb.EmbedImageResponse(embedding=embeddings_message(vector[np.newaxis]), info=call.info())

    def EmbedRegions(
        self, request: pb.EmbedRegionsRequest, context: grpc.ServicerContext
    ) -> pb.EmbedRegionsResponse:
        """Embed boxes of an image."""
        model = self._engine.models.get(request.model)
        boxes = requests.boxes(request.boxes, self._engine.config.max_texts)
        with self._engine.call(model, request.request_id, request_bytes(), context) as call:
            scene = call.see(request.image, keep=request.keep_image, fits=[partial(boxes_inside, boxes)])
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
            max_batch_items=config.max_batch_items,
            max_outputs=config.max_outputs,
            max_in_flight=config.max_in_flight,
            max_streams=config.max_live_streams,
            max_vocabulary_bytes=config.max_vocabulary_bytes,
        )
        limits.kept_ttl.FromNanoseconds(int(1e9 * config.kept_ttl_s))
        limits.vocabulary_ttl.FromNanoseconds(int(1e9 * config.vocabulary_ttl_s))
        return pb.GetServerInfoResponse(
            version=ovperception.__version__,
            models=self._engine.models.infos.values(),
            limits=limits,
            image_formats=IMAGE_FORMATS,
            pixel_formats=PIXEL_FORMATS,
            label_encodings=results_pb2.LabelEncoding.keys()[1:],
            mask_encodings=map(results_pb2.MaskEncoding.Name, MASK_ENCODINGS),
            outputs=OUTPUTS,
            shared_memory=context.peer().startswith("unix:"),
            scaled_decode=config.scaled_decode,
        )

    def _read(self, spec: VocabularySpec) -> AskedWords:
        return self._words.read(spec, caller().name)


def _instances(model: ServedModel, words: AskedWords, request: pb.SegmentImageRequest) -> Question[Any]:
    options = perceive_pb2.DetectOutput(mask_encoding=request.mask_encoding)
    for field in ("score_threshold", "max_detections"):
        if request.HasField(field):
            setattr(options, field, getattr(request, field))
    return detection(model, words, options, 0, need_masks=True)


_Ask = Callable[[ServedModel, AskedWords, pb.SegmentImageRequest], Question[Any]]
_SEGMENTATIONS: dict[int, tuple[Task, str, _Ask]] = {
    pb.SEGMENTATION_TASK_SEMANTIC: ("semantic", "semantic", semantic),
    pb.SEGMENTATION_TASK_INSTANCE: ("detect", "instances", _instances),
    pb.SEGMENTATION_TASK_PANOPTIC: ("panoptic", "panoptic", panoptic),
}
