"""What the calls of one server share: admission, decoders, the model's thread, kept scenes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import grpc
import numpy as np

from ovperception.errors import Unsupported
from ovperception.vocabulary import Vocabulary
from serving.admission import Admission
from serving.call import Call
from serving.callers import client_of, priority_of
from serving.config import ServerConfig
from serving.decoding import Decoders
from serving.fairness import Priority
from serving.jobs import Terms
from serving.models import ModelSet, ServedModel, ServedScene
from serving.scenes import KeptScenes
from serving.shared_memory import SharedMemory
from serving.worker import Worker

__all__ = ["Engine"]


_QUESTIONS: dict[str, Callable[[ServedScene, Vocabulary], object]] = {
    "detect": lambda scene, words: scene.draft_detections(words)(),
    "semantic": lambda scene, words: scene.semantic(words),
    "panoptic": lambda scene, words: scene.panoptic(words),
}


class Engine:
    """What the calls of one server share.

    Args:
        models: The models it serves.
        config: Its limits.
        on_fatal: Called once, on the model's thread, when the device is lost.
    """

    def __init__(
        self,
        models: ModelSet,
        config: ServerConfig,
        *,
        on_fatal: Callable[[Exception], None] | None = None,
    ) -> None:
        self.models = models
        self.config = config
        self.worker = Worker(
            max_batch=config.max_batch, max_batch_pixels=config.max_batch_pixels, on_fatal=on_fatal
        )
        self.decoders = Decoders(config.decode_threads or os.cpu_count() or 1)
        self.shared_memory = SharedMemory(
            max_bytes=config.max_shared_bytes, max_region=config.max_shared_bytes, ttl_s=config.kept_ttl_s
        )
        self._draining: list[Callable[[], None]] = []
        self.kept = KeptScenes(max_bytes=config.max_kept_bytes, ttl_s=config.kept_ttl_s)
        self.admission = Admission(
            max_requests=config.max_requests,
            max_bytes=config.max_queued_bytes,
            max_pixels=config.max_queued_pixels,
            max_client_requests=config.max_client_requests,
            backlog_s=self._backlog_s,
        )

    def warm_up(self, models: Sequence[ServedModel] = ()) -> None:
        """Ask each model once, so that the first caller does not pay for what is done only once.

        Args:
            models: Which; none means all that are loaded.
        """
        words = Vocabulary.from_words(["object"])
        terms = Terms(deadline_s=time.monotonic() + 600)
        for model in models or tuple(self.models):
            picture = model.prepare(np.zeros((64, 64, 3), np.uint8))
            seen = self.worker.encode([model], picture, terms).result().value
            for task in model.tasks:
                with suppress(Unsupported):  # a model may want to be given boxes
                    self.worker.ask(partial(_QUESTIONS[task], seen.scenes[0], words), terms).result()
        self.worker.forget_pace()

    def call(
        self,
        model: ServedModel,
        request_id: str,
        nbytes: int,
        context: grpc.ServicerContext,
        *,
        client: str | None = None,
        priority: Priority | None = None,
    ) -> Call:
        """Admit a call of `nbytes`, to be followed to its end by ``with``.

        Args:
            model: The model it is for.
            request_id: Echoed in the reply.
            nbytes: Bytes of the request.
            context: Tells when the caller leaves, and until when it waits.
            client: Whom the call is for; None: as `serving.callers` tells.
            priority: How urgent it is; None: as the caller's metadata says.
        """
        whom = client_of(context) if client is None else client
        urgency = priority_of(context) if priority is None else priority
        ticket = self.admission.enter(nbytes, whom)
        try:
            return Call(self, model, request_id, ticket, context, client=whom, priority=urgency)
        except BaseException:
            ticket.release()
            raise

    def forget(self, image_id: str, context: grpc.ServicerContext) -> bool:
        """Forget an image kept for this caller; whether there was one."""
        return self.kept.forget(image_id, client_of(context))

    def unload(self, name: str) -> int:
        """Forget a model and the images sent to it; how many these were.

        Raises:
            UnknownModel, InvalidParameter: As `ModelSet.remove`.
        """
        return self.kept.forget_model(self.models.remove(name))

    def drop_expired(self) -> None:
        """Let go of kept images and shared memory whose time is over, though nobody asks for others."""
        self.kept.drop_expired()
        self.shared_memory.drop_expired()

    def on_drain(self, callback: Callable[[], None], *, forget: bool = False) -> None:
        """Have `callback` called when the engine takes no more calls; or do not, any more."""
        if forget:
            self._draining.remove(callback)
        else:
            self._draining.append(callback)

    def drain(self) -> None:
        """Take no more calls; those in work go on."""
        self.admission.close()
        for callback in list(self._draining):
            callback()

    def close(self) -> None:
        """End the threads and drop all scenes."""
        self.admission.close()
        self.decoders.close()
        self.worker.close()
        self.kept.clear()
        self.shared_memory.close()

    def _backlog_s(self) -> float:
        """About how long a client with nothing in work would wait."""
        return self.worker.wait_s(Terms(deadline_s=0.0), pixels=2**20)
