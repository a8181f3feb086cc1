"""One call on its way: from a picture on the wire to an answered question.

It goes through its stages in the thread gRPC gave it, and waits there for the few threads that decode and
for the one of the models. Before each stage it looks whether its caller is still there and has time left.
When its caller leaves it ends at once, wherever it is: what waits in a queue is taken out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

import grpc
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidParameter
from ovperception.v1 import image_pb2, results_pb2, vocabulary_pb2
from ovperception.vocabulary import Vocabulary
from serving.admission import Ticket
from serving.fairness import Priority
from serving.intake import Fits, Intake
from serving.jobs import Terms
from serving.model_jobs import Seen
from serving.models import ServedModel, ServedPicture, ServedScene
from serving.presence import Presence
from serving.scenes import KeptScene

if TYPE_CHECKING:
    from serving.engine import Engine

__all__ = ["Asking", "Call"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Asking(Protocol[T_co]):
    """What is asked about an image."""

    @property
    def model(self) -> ServedModel:
        """Whom it asks."""
        ...

    @property
    def words(self) -> Vocabulary | None:
        """What with, if anything: new words are encoded before."""
        ...

    @property
    def ask(self) -> Callable[[ServedScene], T_co]:
        """Asks; runs on the model's thread."""
        ...

    @property
    def fits(self) -> Fits:
        """Refuses a picture that it cannot be asked of."""
        ...


class Call:
    """One call on its way; the end of its ``with`` gives back what it holds. Made by `Engine.call`."""

    def __init__(
        self,
        engine: Engine,
        model: ServedModel,
        request_id: str,
        ticket: Ticket,
        context: grpc.ServicerContext,
        *,
        client: str,
        priority: Priority,
    ) -> None:
        self.model = model
        self.timing = results_pb2.Timing()
        self.warnings: list[str] = []
        self._engine = engine
        self._request_id = request_id
        self._ticket = ticket
        self._started = time.monotonic()
        # Its type stub forgets calls without a deadline.
        left = cast("float | None", context.time_remaining())
        limit = engine.config.max_wait_s
        deadline_s = self._started + (limit if left is None else min(left, limit))
        self._terms = Terms(client=client, priority=priority, deadline_s=deadline_s)
        self._presence = Presence(context, deadline_s, self.timing)
        self._intake = Intake(engine, ticket, self._terms, self._presence, self.timing, context)
        self._kept: KeptScene | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._ticket.release()

    def see(self, image: image_pb2.Image, *, keep: bool = False, fits: Sequence[Fits] = ()) -> ServedScene:
        """The scene of a request's image: a kept one, or the picture decoded and encoded."""
        return self.see_all(image, [self.model], keep=keep, fits=fits)[0]

    def see_all(
        self,
        image: image_pb2.Image,
        models: Sequence[ServedModel],
        *,
        keep: bool = False,
        fits: Sequence[Fits] = (),
    ) -> list[ServedScene]:
        """What each of several models makes of an image; those of one trunk share a pass.

        Args:
            image: A picture or a handle.
            models: The models. If it is to be kept, it is for the first and those of its trunk.
            keep: Whether to keep it.
            fits: Refuse it by its size, before it is decoded.

        Raises:
            InvalidParameter: A kept image was encoded for a model of another trunk.
        """
        if image.WhichOneof("source") == "image_id":
            return self._recall(image, models, fits)
        trunks = _by_trunk(models)
        prepared = self._intake.prepare(image, trunks, fits)
        scenes: dict[int, ServedScene] = {}
        for some, ready in zip(trunks, prepared, strict=True):
            wanted = keep and some[0].trunk == models[0].trunk
            seen = self._look(some, ready, keep_look=wanted and self._engine.models.share(some[0]))
            scenes |= {id(model): scene for model, scene in zip(some, seen.scenes, strict=True)}
            if wanted:
                self._kept = self._keep(seen, some)
        return [scenes[id(model)] for model in models]

    def ask_about(
        self, image: image_pb2.Image, questions: Sequence[Asking[T]], *, keep: bool = False
    ) -> list[T]:
        """What is answered about an image.

        The model's thread is waited for once, if all models stand on one trunk and nothing must be learned
        before; otherwise as by `see_all` and `ask`.

        Args:
            image: A picture or a handle.
            questions: What is asked of whom.
            keep: Whether to keep the image, for the model of the first question and those of its trunk.

        Raises:
            InvalidParameter: A kept image was encoded for a model of another trunk.
        """
        models = [question.model for question in questions]
        fits = [question.fits for question in questions]
        trunks = _by_trunk(models)
        if image.WhichOneof("source") == "image_id" or len(trunks) > 1 or any(map(_teaches, questions)):
            scenes = self.see_all(image, models, keep=keep, fits=fits)
            return [
                self.ask(partial(question.ask, scene), question.words, model=question.model)
                for question, scene in zip(questions, scenes, strict=True)
            ]
        (some,) = trunks
        (ready,) = self._intake.prepare(image, trunks, fits)
        places = [some.index(model) for model in models]

        def ask(seen: Seen) -> list[T]:
            return [
                question.ask(seen.scenes[place]) for question, place in zip(questions, places, strict=True)
            ]

        keep_look = keep and self._engine.models.share(some[0])
        worker = self._engine.worker
        done = self._presence.wait(worker.encode_and_ask(some, ready, ask, self._terms, keep_look=keep_look))
        self._note_look(done.value.seen, done.batch_size)
        self.timing.classify_ms += done.value.asked_ms
        if keep:
            self._kept = self._keep(done.value.seen, some)
        return done.value.value

    def decode(self, image: image_pb2.Image) -> NDArray[np.uint8]:
        """The picture of a request."""
        return self._intake.decode(image)

    def ask(
        self,
        question: Callable[[], T],
        words: Vocabulary | None = None,
        *,
        model: ServedModel | None = None,
    ) -> T:
        """Run a question on the model's thread.

        Args:
            question: Asks.
            words: What it asks with, if anything: new words are encoded before, a few at a time, while others
                have their turns.
            model: Whom it asks; None: the call's model.
        """
        if words is not None:
            self._learn(model or self.model, words)
        done = self._presence.wait(self._engine.worker.ask(question, self._terms))
        self.timing.classify_ms += done.run_ms
        return done.value

    def finish(self, finish: Callable[[], T]) -> T:
        """Do, and time, what is left of an answer when the model's thread is done with it."""
        self._presence.check()
        started = time.monotonic()
        found = finish()
        self.timing.postprocess_ms += 1e3 * (time.monotonic() - started)
        return found

    def encode(self, write: Callable[[], T]) -> T:
        """Write the answer, and time that."""
        self._presence.check()
        started = time.monotonic()
        written = write()
        self.timing.encode_ms += 1e3 * (time.monotonic() - started)
        return written

    def info(
        self, vocabulary: vocabulary_pb2.VocabularyInfo | None = None, *, truncated: bool = False
    ) -> results_pb2.ResultInfo:
        """What the reply says about itself and the words it was asked with; call it last."""
        self.timing.total_ms = 1e3 * (time.monotonic() - self._started)
        info = results_pb2.ResultInfo(
            request_id=self._request_id,
            model=self._engine.models.info(self.model),
            timing=self.timing,
            vocabulary=vocabulary,
            truncated=truncated,
            warnings=self.warnings,
        )
        self._intake.tell(info, self._kept)
        return info

    def _look(self, models: Sequence[ServedModel], picture: ServedPicture, *, keep_look: bool) -> Seen:
        worker = self._engine.worker
        done = self._presence.wait(worker.encode(models, picture, self._terms, keep_look=keep_look))
        self._note_look(done.value, done.batch_size)
        return done.value

    def _note_look(self, seen: Seen, batch_size: int) -> None:
        timing = self.timing
        timing.batch_size = max(timing.batch_size, batch_size)
        timing.backbone_passes += 1
        spent = seen.scenes[0].timing
        timing.preprocess_ms += spent.get("preprocess", 0.0)
        timing.trunk_ms += spent.get("backbone", 0.0)
        timing.head_ms += sum(scene.timing.get("head", 0.0) for scene in seen.scenes)

    def _keep(self, seen: Seen, models: Sequence[ServedModel]) -> KeptScene | None:
        kept = self._engine.kept.keep(seen.scenes[0], models[0], client=self._terms.client, look=seen.look)
        if kept is None:
            limit = self._engine.config.max_kept_bytes
            self.warnings.append(
                f"the image is not kept: {seen.scenes[0].nbytes} bytes where {limit} may be kept in all"
            )
            return None
        for model, scene in zip(models[1:], seen.scenes[1:], strict=True):
            self._engine.kept.add(kept.image_id, model, scene)
        return kept

    def _recall(
        self, image: image_pb2.Image, models: Sequence[ServedModel], fits: Sequence[Fits]
    ) -> list[ServedScene]:
        kept = self._engine.kept.get(image.image_id, self._terms.client)
        for check in fits:
            check(kept.scene.size)
        self._kept = kept
        self._intake.recall(image, kept)
        return [kept.seen_by(model) or self._seen_again(kept, model) for model in models]

    def _seen_again(self, kept: KeptScene, model: ServedModel) -> ServedScene:
        """What a model makes of an image that was kept for another on its backbone."""
        if kept.look is None or kept.model.trunk != model.trunk:
            raise InvalidParameter(
                "This image was encoded for another model",
                field="model",
                expected=kept.model.name,
                got=model.name,
                mend="Ask that model, or send the picture",
            )
        look = kept.look
        done = self._presence.wait(self._engine.worker.ask(lambda: model.scenes([look])[0], self._terms))
        self.timing.head_ms += done.run_ms
        self._engine.kept.add(kept.image_id, model, done.value)
        return done.value

    def _learn(self, model: ServedModel, words: Vocabulary) -> None:
        steps = model.learn(words)
        if steps is not None:
            done = self._presence.wait(self._engine.worker.learn(steps, self._terms))
            self.timing.classify_ms += done.run_ms


def _by_trunk(models: Sequence[ServedModel]) -> list[list[ServedModel]]:
    """Each model once, those of one trunk together."""
    trunks: dict[str, list[ServedModel]] = {}
    for model in dict.fromkeys(models):
        trunks.setdefault(model.trunk, []).append(model)
    return list(trunks.values())


def _teaches(question: Asking[Any]) -> bool:
    """Whether it asks with words that its model must encode before."""
    return question.words is not None and question.model.learn(question.words) is not None
