"""The questions about one picture, and the few about none, as dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ovperception.boxes import as_boxes
from ovperception.client.batches import Batches, is_too_large
from ovperception.client.dialogue import Ask, Dialogue, server_info
from ovperception.client.handles import Handles, Words
from ovperception.client.numbers import at_least_one, real, whole
from ovperception.client.perceptions import (
    MaskEncoding,
    Output,
    Perception,
    mask_encoding_number,
    output_messages,
)
from ovperception.client.remote_image import RemoteImage
from ovperception.errors import InvalidImage, OVPError, UnknownImage, VocabularyNotFound
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import image_pb2, results_pb2
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.vocabulary import check_texts
from ovperception.wire import (
    boxes_message,
    read_detections,
    read_embeddings,
    read_float_map,
    read_panoptic,
    read_semantic,
)
from ovperception.word_text import check_text

__all__ = ["Questions"]


class Questions:
    """The questions of one client.

    Args:
        model: Name of the model to ask; empty means the server's first.
        max_pixels: Larger pictures are sent smaller; None: only those that the server refuses for their size.
        mask_encoding: How the masks of single questions travel.

    Raises:
        InvalidParameter: There is no such encoding, or no picture of so few pixels.
    """

    def __init__(
        self, model: str, max_pixels: int | None, mask_encoding: MaskEncoding = "cropped_rle"
    ) -> None:
        self._model = model
        self.max_pixels = None if max_pixels is None else at_least_one(max_pixels, "max_pixels")
        self._mask_encoding = results_pb2.MaskEncoding.Name(mask_encoding_number(mask_encoding))
        self._handles = Handles()
        self._server_pixels: int | None = None

    @property
    def handles(self) -> Handles:
        """The vocabularies the server keeps."""
        return self._handles

    def encode(self, image: RemoteImage) -> Dialogue[None]:
        """Have an image kept."""
        request = pb.EncodeImageRequest(model=self._model)
        yield from self._ask(image, "EncodeImage", request)

    def forget(self, image: RemoteImage) -> Dialogue[None]:
        """Have it forgotten; a server that is gone keeps nothing either."""
        image_id, image.image_id = image.image_id, ""
        if image_id:
            try:
                yield Ask("ForgetImage", pb.ForgetImageRequest(image_id=image_id))
            except OVPError:
                return

    def detect(
        self,
        image: RemoteImage,
        words: Words,
        *,
        boxes: ArrayLike | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        nms_iou_threshold: float | None = None,
        masks: bool = True,
    ) -> Dialogue[Detections]:
        """The objects that `words` name."""
        request = pb.DetectObjectsRequest(
            model=self._model,
            score_threshold=real(score_threshold, "score_threshold"),
            max_detections=whole(max_detections, "max_detections"),
            nms_iou_threshold=real(nms_iou_threshold, "nms_iou_threshold"),
            include_masks=masks,
            mask_encoding=self._mask_encoding,
        )
        given = None if boxes is None else as_boxes(boxes)
        reply = yield from self._ask(image, "DetectObjects", request, words, given)
        return image.restore(read_detections(reply.objects, _names(reply.classes), _size(reply)))

    def semantic(
        self, image: RemoteImage, words: Words, *, score_threshold: float | None = None, scores: bool = False
    ) -> Dialogue[SemanticMap]:
        """A class per pixel."""
        request = pb.SegmentImageRequest(
            model=self._model,
            task=pb.SEGMENTATION_TASK_SEMANTIC,
            score_threshold=real(score_threshold, "score_threshold"),
            include_scores=scores,
        )
        reply = yield from self._ask(image, "SegmentImage", request, words)
        return image.restore(read_semantic(reply.semantic, _names(reply.classes)))

    def panoptic(
        self, image: RemoteImage, words: Words, *, score_threshold: float | None = None
    ) -> Dialogue[PanopticMap]:
        """A segment per pixel."""
        request = pb.SegmentImageRequest(
            model=self._model,
            task=pb.SEGMENTATION_TASK_PANOPTIC,
            score_threshold=real(score_threshold, "score_threshold"),
        )
        reply = yield from self._ask(image, "SegmentImage", request, words)
        return image.restore(read_panoptic(reply.panoptic, _names(reply.classes)))

    def heatmap(self, image: RemoteImage, text: str) -> Dialogue[NDArray[np.float32]]:
        """(H, W): how well each pixel fits `text`."""
        check_text(text, "text")
        request = pb.ComputeHeatmapRequest(model=self._model, text=text)
        reply = yield from self._ask(image, "ComputeHeatmap", request)
        return image.restore(read_float_map(reply.heatmap))

    def embed_regions(self, image: RemoteImage, boxes: ArrayLike) -> Dialogue[NDArray[np.float32]]:
        """(N, D): one vector per (N, 4) xyxy box."""
        request = pb.EmbedRegionsRequest(model=self._model)
        reply = yield from self._ask(image, "EmbedRegions", request, boxes=as_boxes(boxes))
        return read_embeddings(reply.embeddings)

    def embed_image(self, image: RemoteImage) -> Dialogue[NDArray[np.float32]]:
        """(D,) vector of a whole image."""
        reply = yield from self._ask(image, "EmbedImage", pb.EmbedImageRequest(model=self._model))
        (vector,) = read_embeddings(reply.embedding)
        return np.asarray(vector, np.float32)

    def embed_text(self, texts: Sequence[str]) -> Dialogue[NDArray[np.float32]]:
        """(T, D) vectors of unit length."""
        reply = yield Ask("EmbedText", pb.EmbedTextRequest(model=self._model, texts=check_texts(texts)))
        return read_embeddings(reply.embeddings)

    def perceive(
        self, pictures: Sequence[image_pb2.Image], words: Words | None, outputs: Sequence[Output]
    ) -> Dialogue[list[Perception | OVPError]]:
        """Several outputs of each of several pictures; a picture that fails, fails alone."""
        batches = Batches(self._model, self._handles, words, output_messages(outputs))
        return batches.perceive(pictures, self.max_pixels)

    def most_pixels(self) -> Dialogue[int | None]:
        """What pictures of more pixels are to be made smaller to; None while the server cannot be asked."""
        if self.max_pixels is None and self._server_pixels is None:
            try:
                self._server_pixels = (yield from server_info()).max_pixels
            except OVPError:  # a stream waits for a server that is gone
                return None
        return self.max_pixels or self._server_pixels

    def _ask(
        self,
        image: RemoteImage,
        method: str,
        request: Any,
        words: Words | None = None,
        boxes: NDArray[np.float32] | None = None,
    ) -> Dialogue[Any]:
        """Ask about an image, by handles where the server has given them; send in full what it has not."""
        image.fit(self.max_pixels)
        while True:
            named = None if words is None else self._handles.name(words)
            if named is not None:
                request.vocabulary.CopyFrom(named.spec)
            image_id = image.image_id
            if image_id:
                request.image.image_id = image_id
            else:
                request.image.CopyFrom(image.picture)
            if boxes is not None:
                _put_boxes(request, image.boxes_sent(boxes))
            try:
                reply = yield Ask(method, request)
            except VocabularyNotFound:
                if named is None or not named.by_handle:
                    raise
                self._handles.forget(named.key)
            except UnknownImage:
                if not image_id:
                    raise
                image.image_id, request.keep_image = "", True
            except InvalidImage as error:
                if image_id or not (yield from _fit_to_server(image, error)):
                    raise
            else:
                if named is not None:
                    self._handles.learn(named.key, reply.info.vocabulary.handle)
                image.seen(reply.info.image.image_id, _size(reply))
                return reply


def _fit_to_server(image: RemoteImage, error: InvalidImage) -> Dialogue[bool]:
    """Make a picture smaller that was too large for the server; whether it was."""
    if not is_too_large(error):
        return False
    info = yield from server_info()
    return image.fit(info.max_pixels)


def _put_boxes(request: Any, boxes: NDArray[np.float32]) -> None:
    if isinstance(request, pb.DetectObjectsRequest):
        request.regions.CopyFrom(pb.Regions(boxes=boxes_message(boxes)))
    else:
        del request.boxes[:]
        request.boxes.extend(boxes_message(boxes))


def _size(reply: Any) -> tuple[int, int]:
    return (reply.info.image.height, reply.info.image.width)


def _names(classes: Sequence[results_pb2.ClassInfo]) -> tuple[str, ...]:
    return tuple(entry.name for entry in classes)
