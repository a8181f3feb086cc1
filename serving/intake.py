"""The picture of a call: admitted by its header, decoded among the decoders, told of in the reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from ovperception.v1 import image_pb2, results_pb2
from serving.admission import Ticket
from serving.jobs import Terms
from serving.models import ServedModel
from serving.pictures import Picture, open_picture
from serving.presence import Presence
from serving.scenes import KeptScene
from serving.security import caller
from serving.shared_memory import check_local

if TYPE_CHECKING:
    from serving.engine import Engine

__all__ = ["Fits", "Intake"]

T = TypeVar("T")
Fits = Callable[[tuple[int, int]], object]  # raises if a picture of this (height, width) cannot be asked


class Intake:
    """Takes in the picture of one call.

    Args:
        engine: Has the decoders, and the limits.
        ticket: Takes room for the pixels.
        terms: Of the call.
        presence: Of its caller.
        timing: What decoding took is added to this.
        context: Tells whether shared memory may be meant.
    """

    def __init__(
        self,
        engine: Engine,
        ticket: Ticket,
        terms: Terms,
        presence: Presence,
        timing: results_pb2.Timing,
        context: grpc.ServicerContext,
    ) -> None:
        self._engine = engine
        self._ticket = ticket
        self._terms = terms
        self._presence = presence
        self._timing = timing
        self._context = context
        self._image: image_pb2.Image | None = None
        self._size = (0, 0)

    # Any: each model takes its own kind of pictures.
    def prepare(
        self, image: image_pb2.Image, trunks: Sequence[Sequence[ServedModel]], fits: Sequence[Fits] = ()
    ) -> list[Any]:
        """The picture decoded, and ready for each trunk; before that each of `fits` may refuse its size.

        Raises:
            ResourceExhausted, DeadlineExceeded: It would have to wait for too long.
        """
        picture = self._open(image)
        for check in fits:
            check(picture.size)
        self._check_wait(picture, trunks[0])
        models = [some[0] for some in trunks]
        scaled = self._engine.config.scaled_decode
        least = _most_wanted(models, picture.size) if scaled else picture.size
        return self._decode(picture, least, partial(_prepared, models, picture.size))

    def decode(self, image: image_pb2.Image) -> NDArray[np.uint8]:
        """The picture decoded: (H, W, 3) RGB."""
        picture = self._open(image)
        return self._decode(picture, picture.size, lambda pixels: pixels)

    def recall(self, image: image_pb2.Image, kept: KeptScene) -> None:
        """It was taken in by an earlier call."""
        self._image, self._size = image, kept.scene.size

    def tell(self, info: results_pb2.ResultInfo, kept: KeptScene | None) -> None:
        """Say in a reply what the picture was, if the call has one, and where it is kept."""
        if self._image is None:
            return
        told, image = info.image, self._image
        told.height, told.width = self._size
        told.frame_id = image.frame_id
        if image.HasField("capture_time"):
            told.capture_time.CopyFrom(image.capture_time)
        if kept is not None:
            told.image_id = kept.image_id
            left_s = kept.expires_s - time.monotonic()
            told.expire_time.FromNanoseconds(time.time_ns() + int(1e9 * left_s))

    def _open(self, image: image_pb2.Image) -> Picture:
        """Look at the header, and take room for the pixels."""
        self._presence.check()
        if image.WhichOneof("source") == "shared_memory":
            check_local(self._context, "image.shared_memory")
            image = self._engine.shared_memory.image(image, caller().name)
        picture = open_picture(image, self._engine.config.max_pixels)
        self._ticket.take(pixels=picture.pixels)
        self._image, self._size = image, picture.size
        return picture

    def _check_wait(self, picture: Picture, models: Sequence[ServedModel]) -> None:
        """Refuse a picture now that would have to wait for too long."""
        engine, terms = self._engine, self._terms
        height, width = models[0].preprocessing.geometry(picture.size).padded
        wait_s = engine.decoders.wait_s(terms, pixels=picture.pixels)
        wait_s += engine.worker.wait_s(terms, pixels=height * width)
        engine.admission.check_wait(wait_s, terms.deadline_s - time.monotonic(), engine.config.max_queue_s)

    def _decode(self, picture: Picture, least: tuple[int, int], then: Callable[[NDArray[np.uint8]], T]) -> T:
        """Decode a picture to that size at least, and go on with its pixels, among the decoders."""

        def work() -> tuple[T, float]:
            started = time.monotonic()
            pixels = picture.decode(least)
            spent_ms = 1e3 * (time.monotonic() - started)
            return then(pixels), spent_ms

        decoders = self._engine.decoders
        self._presence.check()
        done = decoders.do_at_once(work, pixels=picture.pixels)
        if done is None:
            done = self._presence.wait(decoders.submit(work, self._terms, pixels=picture.pixels))
        value, spent_ms = done.value
        self._timing.decode_ms += spent_ms
        return value


def _most_wanted(models: Sequence[ServedModel], size: tuple[int, int]) -> tuple[int, int]:
    """The least (height, width) of a picture of that size that will do for all of some models."""
    sizes = [model.preprocessing.geometry(size).resized for model in models]
    return max(height for height, _ in sizes), max(width for _, width in sizes)


# Any: each model takes its own kind of pictures.
def _prepared(
    models: Sequence[ServedModel], presented: tuple[int, int], pixels: NDArray[np.uint8]
) -> list[Any]:
    return [model.prepare(pixels, presented=presented) for model in models]
