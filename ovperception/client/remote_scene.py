"""An image a server knows: the questions of `ovperception.Scene`, asked over the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ovperception.boxes import as_boxes
from ovperception.errors import OVPError, UnknownImage
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import image_pb2, results_pb2
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.vocabulary import Vocabulary
from ovperception.wire import (
    boxes_message,
    read_detections,
    read_embeddings,
    read_float_map,
    read_panoptic,
    read_semantic,
    vocabulary_message,
)

if TYPE_CHECKING:
    from ovperception.client.client import Client

__all__ = ["RemoteScene"]


class _Request(Protocol):
    """A request about an image."""

    keep_image: bool

    @property
    def image(self) -> image_pb2.Image: ...


class _Reply(Protocol):
    @property
    def info(self) -> results_pb2.ResultInfo: ...


Q = TypeVar("Q", bound=_Request)
A = TypeVar("A", bound=_Reply)


class RemoteScene:
    """An encoded image on a server. Made by `Client.encode`.

    The server keeps a bounded number of images. If it has dropped this one, the next question sends the
    picture again by itself. Safe to use from several threads.

    Attributes:
        size: (height, width) of the presented image; zeros until the server has seen it.
    """

    def __init__(
        self, client: Client, picture: image_pb2.Image, *, image_id: str = "", size: tuple[int, int] = (0, 0)
    ) -> None:
        self.size = size
        self._client = client
        self._picture = picture
        self._image_id = image_id

    def detect(
        self,
        words: Sequence[str] | Vocabulary,
        *,
        boxes: ArrayLike | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        nms_iou_threshold: float | None = None,
        masks: bool = True,
    ) -> Detections:
        """The objects that `words` name; see `ovperception.Scene.detect`."""
        request = pb.DetectObjectsRequest(
            model=self._client.model,
            vocabulary=_spec(words),
            score_threshold=score_threshold,
            max_detections=None if max_detections is None else _int32(max_detections),
            nms_iou_threshold=nms_iou_threshold,
            include_masks=masks,
            regions=None if boxes is None else pb.Regions(boxes=boxes_message(as_boxes(boxes))),
        )
        reply = self._ask(self._client.perception.DetectObjects, request)
        return read_detections(reply.objects, _names(reply.classes), self.size)

    def semantic(
        self,
        words: Sequence[str] | Vocabulary,
        *,
        score_threshold: float | None = None,
        scores: bool = False,
    ) -> SemanticMap:
        """A class per pixel; see `ovperception.Scene.semantic`.

        Args:
            words: The classes.
            score_threshold: Pixels that score less stay undecided; None means the model's own.
            scores: Whether to fetch every pixel's score too: four bytes a pixel before compression.
        """
        request = pb.SegmentImageRequest(
            model=self._client.model,
            vocabulary=_spec(words),
            task=pb.SEGMENTATION_TASK_SEMANTIC,
            score_threshold=score_threshold,
            include_scores=scores,
        )
        reply = self._ask(self._client.perception.SegmentImage, request)
        return read_semantic(reply.semantic, _names(reply.classes))

    def panoptic(
        self, words: Sequence[str] | Vocabulary, *, score_threshold: float | None = None
    ) -> PanopticMap:
        """A segment per pixel; see `ovperception.Scene.panoptic`."""
        request = pb.SegmentImageRequest(
            model=self._client.model,
            vocabulary=_spec(words),
            task=pb.SEGMENTATION_TASK_PANOPTIC,
            score_threshold=score_threshold,
        )
        reply = self._ask(self._client.perception.SegmentImage, request)
        return read_panoptic(reply.panoptic, _names(reply.classes))

    def heatmap(self, text: str) -> NDArray[np.float32]:
        """(H, W): how well each pixel fits `text`; see `ovperception.Scene.heatmap`."""
        request = pb.ComputeHeatmapRequest(model=self._client.model, text=text)
        return read_float_map(self._ask(self._client.perception.ComputeHeatmap, request).heatmap)

    def embed_regions(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, D): one vector per (N, 4) xyxy box; see `ovperception.Scene.embed_regions`."""
        request = pb.EmbedRegionsRequest(model=self._client.model, boxes=boxes_message(as_boxes(boxes)))
        return read_embeddings(self._ask(self._client.perception.EmbedRegions, request).embeddings)

    def close(self) -> None:
        """Let the server forget the image; without it the server does so by itself in a while."""
        image_id, self._image_id = self._image_id, ""
        if image_id:
            request = pb.ForgetImageRequest(image_id=image_id)
            with suppress(OVPError):  # a server that is gone keeps nothing either
                self._client.call(self._client.perception.ForgetImage, request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: Callable[..., A], request: Q) -> A:
        """Ask about the kept image; send the picture if there is none, or not any more."""
        image_id = self._image_id
        if not image_id:
            return self._send(method, request)
        request.image.image_id = image_id
        try:
            return self._client.ask(method, request)
        except UnknownImage:
            request.keep_image = True
            reply = self._send(method, request)
            self._image_id = reply.info.image.image_id
            return reply

    def _send(self, method: Callable[..., A], request: Q) -> A:
        request.image.CopyFrom(self._picture)
        reply = self._client.ask(method, request)
        self.size = (reply.info.image.height, reply.info.image.width)
        return reply


@dataclass(frozen=True, slots=True)
class _Words:
    """A vocabulary that compares by its content hash: to hash a thousand classes anew takes milliseconds."""

    identity: tuple[str, ...]
    vocabulary: Vocabulary = field(compare=False)


def _spec(words: Sequence[str] | Vocabulary) -> VocabularySpec:
    vocabulary = Vocabulary.from_words(words) if not isinstance(words, Vocabulary) else words
    return _cached_spec(_Words((vocabulary.content_hash, vocabulary.name), vocabulary))


# A stream asks with the same words for every frame.
@lru_cache(maxsize=32)
def _cached_spec(words: _Words) -> VocabularySpec:
    return VocabularySpec(inline=vocabulary_message(words.vocabulary))


def _names(classes: Sequence[results_pb2.ClassInfo]) -> tuple[str, ...]:
    return tuple(entry.name for entry in classes)


def _int32(value: int) -> int:
    """A number the wire can carry; the server refuses what lies outside like any other wrong number."""
    return max(-1, min(int(value), 2**31 - 1))
