"""What a client says and understands, without saying how it is carried: threads and asyncio share it.

A `Dialogue` is a generator that gives one call after another, is sent each reply, or has the error of ours it
ended with thrown in, and returns the answer. So what happens when the server has forgotten a picture or the
words, or finds a picture too large, is written once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ovperception.boxes import as_boxes
from ovperception.client import scaling
from ovperception.client.handles import Handles, Words
from ovperception.client.perceptions import (
    MaskEncoding,
    Output,
    Perception,
    mask_encoding_number,
    output_messages,
    read_failure,
    read_perception,
)
from ovperception.errors import InvalidImage, OVPError, UnknownImage, VocabularyNotFound
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import image_pb2, perceive_pb2, results_pb2
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.wire import (
    boxes_message,
    read_detections,
    read_embeddings,
    read_float_map,
    read_panoptic,
    read_semantic,
)

__all__ = ["Ask", "Dialogue", "Questions", "RemoteImage", "restored"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """A call to make: a method, its request, and which of a client's stubs has it."""

    method: str
    request: Any  # a message; each method has its own
    service: Literal["perception", "vocabularies"] = "perception"


Dialogue = Generator[Ask, Any, T]


@dataclass(slots=True)
class RemoteImage:
    """A picture as a client and a server know it.

    Attributes:
        picture: What is sent.
        image_id: The server's handle; empty if it keeps none.
        size: (height, width) as presented; zeros until the server has seen it.
        shrunk: (height, width) of what is sent, if that is smaller than `size`; else zeros.
    """

    picture: image_pb2.Image
    image_id: str = ""
    size: tuple[int, int] = (0, 0)
    shrunk: tuple[int, int] = (0, 0)


class Questions:
    """The questions of one client.

    Args:
        model: Name of the model to ask; empty means the server's first.
        max_pixels: Larger pictures are sent smaller; None: only those that the server refuses for their size.
        mask_encoding: How the masks of single questions travel.

    Raises:
        InvalidParameter: There is no such encoding.
    """

    def __init__(
        self, model: str, max_pixels: int | None, mask_encoding: MaskEncoding = "cropped_rle"
    ) -> None:
        self._model = model
        self.max_pixels = max_pixels
        self._mask_encoding = results_pb2.MaskEncoding.Name(mask_encoding_number(mask_encoding))
        self._handles = Handles()

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
            score_threshold=score_threshold,
            max_detections=None if max_detections is None else _int32(max_detections),
            nms_iou_threshold=nms_iou_threshold,
            include_masks=masks,
            mask_encoding=self._mask_encoding,
        )
        given = None if boxes is None else as_boxes(boxes)
        reply = yield from self._ask(image, "DetectObjects", request, words, given)
        found = read_detections(reply.objects, _names(reply.classes), _size(reply))
        return scaling.restore(found, image.size) if _is_smaller(found.size, image) else found

    def semantic(
        self, image: RemoteImage, words: Words, *, score_threshold: float | None = None, scores: bool = False
    ) -> Dialogue[SemanticMap]:
        """A class per pixel."""
        request = pb.SegmentImageRequest(
            model=self._model,
            task=pb.SEGMENTATION_TASK_SEMANTIC,
            score_threshold=score_threshold,
            include_scores=scores,
        )
        reply = yield from self._ask(image, "SegmentImage", request, words)
        found = read_semantic(reply.semantic, _names(reply.classes))
        return scaling.restore(found, image.size) if _is_smaller(found.size, image) else found

    def panoptic(
        self, image: RemoteImage, words: Words, *, score_threshold: float | None = None
    ) -> Dialogue[PanopticMap]:
        """A segment per pixel."""
        request = pb.SegmentImageRequest(
            model=self._model, task=pb.SEGMENTATION_TASK_PANOPTIC, score_threshold=score_threshold
        )
        reply = yield from self._ask(image, "SegmentImage", request, words)
        found = read_panoptic(reply.panoptic, _names(reply.classes))
        return scaling.restore(found, image.size) if _is_smaller(found.size, image) else found

    def heatmap(self, image: RemoteImage, text: str) -> Dialogue[NDArray[np.float32]]:
        """(H, W): how well each pixel fits `text`."""
        request = pb.ComputeHeatmapRequest(model=self._model, text=text)
        reply = yield from self._ask(image, "ComputeHeatmap", request)
        found = read_float_map(reply.heatmap)
        smaller = _is_smaller((found.shape[0], found.shape[1]), image)
        return scaling.restore(found, image.size) if smaller else found

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
        reply = yield Ask("EmbedText", pb.EmbedTextRequest(model=self._model, texts=texts))
        return read_embeddings(reply.embeddings)

    def perceive(
        self, pictures: Sequence[image_pb2.Image], words: Words | None, outputs: Sequence[Output]
    ) -> Dialogue[list[Perception | OVPError]]:
        """Several outputs of each of several pictures; a picture that fails, fails alone."""
        messages = output_messages(outputs)
        found = yield from self._perceive(pictures, words, messages, self.max_pixels)
        large = [index for index, answer in enumerate(found) if _is_too_large(answer)]
        if large:
            info = yield Ask("GetServerInfo", pb.GetServerInfoRequest())
            chosen = [pictures[index] for index in large]
            again = yield from self._perceive(chosen, words, messages, int(info.limits.max_pixels))
            for index, answer in zip(large, again, strict=True):
                found[index] = answer
        return found

    def _perceive(
        self,
        pictures: Sequence[image_pb2.Image],
        words: Words | None,
        outputs: Sequence[perceive_pb2.PerceiveOutput],
        max_pixels: int | None,
    ) -> Dialogue[list[Perception | OVPError]]:
        """A batch; pictures of more than `max_pixels` are sent smaller."""
        fitting = [scaling.fit(picture, max_pixels) for picture in pictures]
        items = [perceive_pb2.BatchItem(image=picture) for picture, _ in fitting]
        request = perceive_pb2.BatchPerceiveRequest(model=self._model, outputs=outputs, items=items)
        started = time.perf_counter()
        while True:
            key, by_handle = "", False
            if words is not None:
                spec, key = self._handles.spec(words)
                by_handle = bool(key) and spec.WhichOneof("value") == "name"
                request.vocabulary.CopyFrom(spec)
            try:
                reply = yield Ask("BatchPerceive", request)
            except VocabularyNotFound:
                if not by_handle:
                    raise
                self._handles.forget(key)
            else:
                break
        spent_ms = 1e3 * (time.perf_counter() - started)
        found: list[Perception | OVPError] = []
        for item, (_, size) in zip(reply.items, fitting, strict=True):
            if item.WhichOneof("outcome") == "error":
                found.append(read_failure(item.error))
                continue
            self._handles.learn(key, item.result.info.vocabulary.handle)
            answer = read_perception(item.result, spent_ms)
            found.append(answer if size is None else restored(answer, size))
        return found

    def _ask(
        self,
        image: RemoteImage,
        method: str,
        request: Any,
        words: Words | None = None,
        boxes: NDArray[np.float32] | None = None,
    ) -> Dialogue[Any]:
        """Ask about an image, by handles where the server has given them; send in full what it has not."""
        self._fit(image, self.max_pixels)
        while True:
            key, by_handle = "", False
            if words is not None:
                spec, key = self._handles.spec(words)
                by_handle = bool(key) and spec.WhichOneof("value") == "name"
                request.vocabulary.CopyFrom(spec)
            image_id = image.image_id
            if image_id:
                request.image.image_id = image_id
            else:
                request.image.CopyFrom(image.picture)
            if boxes is not None:
                _put_boxes(request, boxes, image)
            try:
                reply = yield Ask(method, request)
            except VocabularyNotFound:
                if not by_handle:
                    raise
                self._handles.forget(key)
            except UnknownImage:
                if not image_id:
                    raise
                image.image_id, request.keep_image = "", True
            except InvalidImage as error:
                if image_id or not (yield from self._fit_to_server(image, error)):
                    raise
            else:
                self._handles.learn(key, reply.info.vocabulary.handle)
                image.image_id = reply.info.image.image_id
                if image.shrunk == (0, 0):
                    image.size = _size(reply)
                return reply

    def _fit_to_server(self, image: RemoteImage, error: InvalidImage) -> Dialogue[bool]:
        """Make a picture smaller that was too large for the server; whether it was."""
        if not _is_too_large(error):
            return False
        info = yield Ask("GetServerInfo", pb.GetServerInfoRequest())
        return self._fit(image, int(info.limits.max_pixels))

    def _fit(self, image: RemoteImage, max_pixels: int | None) -> bool:
        if not max_pixels or image.image_id or (image.size != (0, 0) and image.shrunk == (0, 0)):
            return False
        done = scaling.shrink(image.picture, max_pixels)
        if done is None:
            return False
        size = done[1]
        image.picture = done[0]
        if image.shrunk == (0, 0):
            image.size = size
        image.shrunk = scaling.size_of(image.picture)
        return True


def restored(found: Perception, size: scaling.Size) -> Perception:
    """The same answers about a picture of `size`."""
    answers = tuple(scaling.restore(answer, size) for answer in found.answers)
    return replace(found, reply=replace(found.reply, size=size), answers=answers)


def _is_too_large(found: object) -> bool:
    return isinstance(found, InvalidImage) and "too large" in found.what


def _put_boxes(request: Any, boxes: NDArray[np.float32], image: RemoteImage) -> None:
    if image.shrunk != (0, 0):
        boxes = scaling.scale_boxes(boxes, image.size, image.shrunk)
    if isinstance(request, pb.DetectObjectsRequest):
        request.regions.CopyFrom(pb.Regions(boxes=boxes_message(boxes)))
    else:
        del request.boxes[:]
        request.boxes.extend(boxes_message(boxes))


def _is_smaller(size: tuple[int, int], image: RemoteImage) -> bool:
    return image.shrunk != (0, 0) and size != image.size


def _size(reply: Any) -> tuple[int, int]:
    return (reply.info.image.height, reply.info.image.width)


def _names(classes: Sequence[results_pb2.ClassInfo]) -> tuple[str, ...]:
    return tuple(entry.name for entry in classes)


def _int32(value: int) -> int:
    """A number the wire can carry; the server refuses what lies outside like any other wrong number."""
    return max(-1, min(int(value), 2**31 - 1))
