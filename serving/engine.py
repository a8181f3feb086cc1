"""From a picture on the wire to an answered question: admission, decoding, the queue, kept scenes, timing.

A call goes through its stages in the thread gRPC gave it and waits there for the model's thread. Before each
stage it looks whether its caller is still there and has time left; what waits in a queue when its caller
leaves is taken out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar, cast

import grpc
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import DeadlineExceeded, InvalidParameter, Unsupported
from ovperception.v1 import image_pb2, results_pb2, vocabulary_pb2
from ovperception.vocabulary import Vocabulary
from serving import requests
from serving.admission import Admission, Ticket
from serving.config import ServerConfig
from serving.models import ModelSet, ServedModel, ServedScene
from serving.scenes import KeptScene, KeptScenes
from serving.worker import Done, Worker

__all__ = ["Call", "CallCancelled", "Engine"]

T = TypeVar("T")


class CallCancelled(Exception):
    """The caller has left; nobody reads the answer."""


class Engine:
    """What the calls of one server share.

    Args:
        models: The models it serves.
        config: Its limits.
    """

    def __init__(self, models: ModelSet, config: ServerConfig) -> None:
        self.models = models
        self.config = config
        self.worker = Worker(max_batch=config.max_batch)
        self.kept = KeptScenes(max_bytes=config.max_kept_bytes, ttl_s=config.kept_ttl_s)
        self.admission = Admission(
            max_requests=config.max_requests,
            max_bytes=config.max_queued_bytes,
            max_pixels=config.max_queued_pixels,
        )

    def warm_up(self) -> None:
        """Ask every model once, so that the first caller does not pay for what is done only once."""
        words = Vocabulary.from_words(["object"])
        for model in self.models:
            deadline_s = time.monotonic() + 600
            blank = np.zeros((64, 64, 3), np.uint8)
            scene = self.worker.encode(model, blank, deadline_s).result().value
            for task in model.tasks:
                with suppress(Unsupported):  # a model may want to be given boxes
                    self.worker.ask(partial(_QUESTIONS[task], scene, words), deadline_s).result()

    @contextmanager
    def call(
        self, model: ServedModel, request_id: str, nbytes: int, context: grpc.ServicerContext
    ) -> Iterator[Call]:
        """Admit a call of `nbytes` and follow it to its end."""
        with self.admission.enter(nbytes) as ticket:
            yield Call(self, model, request_id, ticket, context)

    def close(self) -> None:
        """End the model's thread and drop all scenes."""
        self.admission.close()
        self.worker.close()
        self.kept.clear()


_QUESTIONS: dict[str, Callable[[ServedScene, Vocabulary], object]] = {
    "detect": lambda scene, words: scene.detect(words),
    "semantic": lambda scene, words: scene.semantic(words),
    "panoptic": lambda scene, words: scene.panoptic(words),
}


class Call:
    """One call on its way. Made by `Engine.call`."""

    def __init__(
        self,
        engine: Engine,
        model: ServedModel,
        request_id: str,
        ticket: Ticket,
        context: grpc.ServicerContext,
    ) -> None:
        self.model = model
        self.timing = results_pb2.Timing()
        self.warnings: list[str] = []
        self._engine = engine
        self._request_id = request_id
        self._ticket = ticket
        self._started = time.monotonic()
        left = cast(
            "float | None", context.time_remaining()
        )  # its type stub forgets calls without a deadline
        limit = engine.config.max_wait_s
        self._deadline_s = self._started + (limit if left is None else min(left, limit))
        self._image: image_pb2.Image | None = None
        self._size = (0, 0)
        self._kept: KeptScene | None = None
        self._left = False
        self._waiting: Future[Any] | None = None
        context.add_callback(self._leave)
        self._left |= not context.is_active()

    def see(self, image: image_pb2.Image, *, keep: bool = False) -> ServedScene:
        """The scene of a request's image: a kept one, or the picture decoded and encoded."""
        if image.WhichOneof("source") == "image_id":
            kept = self._engine.kept.get(image.image_id)
            if kept.model is not self.model:
                raise InvalidParameter(
                    "This image was encoded for another model",
                    field="model",
                    expected=kept.model.name,
                    got=self.model.name,
                    mend="Ask that model, or send the picture",
                )
            self._image, self._size, self._kept = image, kept.scene.size, kept
            return kept.scene
        done = self._wait(self._engine.worker.encode(self.model, self.decode(image), self._deadline_s))
        scene = done.value
        self.timing.batch_size = done.batch_size
        spent = scene.timing
        self.timing.preprocess_ms = spent.get("preprocess", 0.0)
        self.timing.trunk_ms = spent.get("backbone", 0.0)
        self.timing.head_ms = spent.get("head", 0.0)
        if keep:
            self._kept = self._keep(scene)
        return scene

    def _keep(self, scene: ServedScene) -> KeptScene | None:
        kept = self._engine.kept.keep(scene, self.model)
        if kept is None:
            limit = self._engine.config.max_kept_bytes
            self.warnings.append(
                f"the image is not kept: {scene.nbytes} bytes where {limit} may be kept in all"
            )
        return kept

    def decode(self, image: image_pb2.Image) -> NDArray[np.uint8]:
        """The picture of a request."""
        self._check()
        started = time.monotonic()
        picture = requests.pixels(image, self._ticket, self._engine.config.max_pixels)
        self.timing.decode_ms += 1e3 * (time.monotonic() - started)
        self._image, self._size = image, picture.shape[:2]
        return picture

    def ask(self, question: Callable[[], T]) -> T:
        """Run a question on the model's thread."""
        done = self._wait(self._engine.worker.ask(question, self._deadline_s))
        self.timing.classify_ms += done.run_ms
        return done.value

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Time the writing of the answer."""
        self._check()
        started = time.monotonic()
        yield
        self.timing.encode_ms += 1e3 * (time.monotonic() - started)

    def info(self, words: Vocabulary | None = None, *, truncated: bool = False) -> results_pb2.ResultInfo:
        """What the reply says about itself; call it last."""
        self.timing.total_ms = 1e3 * (time.monotonic() - self._started)
        info = results_pb2.ResultInfo(
            request_id=self._request_id,
            model=self._engine.models.infos[self.model.name],
            timing=self.timing,
            truncated=truncated,
            warnings=self.warnings,
        )
        if self._image is not None:
            info.image.CopyFrom(_image_info(self._image, self._size, self._kept))
        if words is not None:
            name, digest = words.name, words.content_hash
            info.vocabulary.CopyFrom(vocabulary_pb2.VocabularyInfo(name=name, content_hash=digest))
        return info

    def _wait(self, future: Future[Done[T]]) -> Done[T]:
        self._waiting = future
        try:
            self._check()
            done = future.result(timeout=max(0.0, self._deadline_s - time.monotonic()))
        except CancelledError:
            raise CallCancelled from None
        except TimeoutError:
            future.cancel()
            raise _late() from None
        finally:
            self._waiting = None
        self.timing.queue_ms += done.queue_ms
        return done

    def _check(self) -> None:
        """Go on only if somebody waits for the answer."""
        if self._left:
            if self._waiting is not None:
                self._waiting.cancel()
            raise CallCancelled
        if time.monotonic() >= self._deadline_s:
            if self._waiting is not None:
                self._waiting.cancel()
            raise _late()

    def _leave(self) -> None:
        """Called by gRPC, from another thread, when the call ends in whatever way."""
        self._left = True
        waiting = self._waiting
        if waiting is not None:
            waiting.cancel()


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("The answer was not ready in time", mend="Allow more time")


def _image_info(image: image_pb2.Image, size: tuple[int, int], kept: KeptScene | None) -> image_pb2.ImageInfo:
    height, width = size
    info = image_pb2.ImageInfo(width=width, height=height, frame_id=image.frame_id)
    if image.HasField("capture_time"):
        info.capture_time.CopyFrom(image.capture_time)
    if kept is not None:
        info.image_id = kept.image_id
        left_s = kept.expires_s - time.monotonic()
        info.expire_time.FromNanoseconds(time.time_ns() + int(1e9 * left_s))
    return info
