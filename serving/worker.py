"""The one thread that runs models: looks at images in batches, and answers questions about them in between.

A batch is what queued up while the thread was busy, which costs a lone caller nothing. Callers who ask again
as soon as they are answered would fall into groups that take turns, each with a pass of its own. So the
thread waits for those it has just answered, until all are back or the time is up that a larger batch makes up
for, and for less and less of that while it does not.
Whose image begins it is a matter of fairness; it is filled with images of the same trunk and network size,
whatever model they are meant for and whatever they will be asked, up to a number of images and of pixels.
Images of other sizes are not padded to join it: their features would depend on their neighbours.

A question costs a fraction of an image, so questions go first, but when images wait for no longer than the
last batch took. An image may bring a question along, which is queued when the image was looked at: who asks
one thing of one image waits for this thread once. The calls that are yet to ask of what was just looked at
get a moment to wake up before the next batch begins, or their answers would have to wait for all of that too.
New words are encoded last, a few at a time between two batches.

One thread because compiled modules and CUDA graphs must be called from the thread that made them, and
because on a CPU two forward passes at once are slower than one after the other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from ovperception.errors import Unavailable
from serving.batch_caps import BatchCaps
from serving.fairness import FairQueue
from serving.faults import explain, is_fatal, ran_out_of_memory
from serving.jobs import Done, Job, Pace, Terms, closing
from serving.models import ServedLook, ServedModel, ServedPicture, ServedScene

__all__ = ["Answered", "Counters", "Seen", "Worker"]

T = TypeVar("T")
_SHORTEST_TURN_S = 0.02
_LONGEST_HANDOVER_S = 0.005
_HANDOVER_SHARE = 0.1  # of what the last batch took
_FAILURES_BEFORE_PROBE = 4
# How long to wait for a fuller batch after the last one, as a share of what that took, and at most.
_GATHER_SHARE = 0.5
_LONGEST_GATHER_S = 0.02
_LEAST_PATIENCE = 1 / 32
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An image that was looked at.

    Attributes:
        scenes: What each of the models it was meant for made of it.
        look: What the backbone saw, if it shall be kept for other models.
    """

    scenes: tuple[ServedScene, ...]
    look: ServedLook | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Generic[T]):
    """An image that was looked at, and what its question was answered; `asked_ms` is what that took."""

    seen: Seen
    value: T
    asked_ms: float


@dataclass(slots=True, kw_only=True)
class Counters:
    """What the thread has done so far."""

    passes: int = 0
    images: int = 0
    questions: int = 0
    out_of_memory: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class _Image(Job):
    models: Sequence[ServedModel]
    picture: ServedPicture
    key: tuple[str, tuple[int, int]]  # what images of one batch have in common: trunk and network size
    keep_look: bool
    question: Callable[[Seen], object] | None = None

    def start(self) -> bool:
        """As any job's; but who brought a question may leave until that is asked."""
        if self.question is None:
            return Job.start(self)
        return not self.future.cancelled() and self.in_time()


@dataclass(slots=True, kw_only=True, eq=False)
class _Question(Job):
    ask: Callable[[], object]
    looked: Done[Seen] | None = None  # at the image that brought it

    def answered(self, value: object, started: float) -> Done[Any]:
        """What came of it, and of the image that brought it."""
        done, looked = self.done(value, started), self.looked
        if looked is None:
            return done
        return Done(
            value=Answered(seen=looked.value, value=value, asked_ms=done.run_ms),
            queue_ms=looked.queue_ms + done.queue_ms,
            run_ms=looked.run_ms,
            batch_size=looked.batch_size,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class _Lesson(Job):
    steps: Iterator[int]
    started: bool = False


class Worker:
    """The thread and its queues.

    Args:
        max_batch: Most images in one pass through a backbone.
        max_batch_pixels: Most pixels of their network inputs together; an image alone may have more.
        on_fatal: Called once, on the model's thread, when the device is lost; all work is refused from then
            on.
    """

    def __init__(
        self,
        *,
        max_batch: int = 8,
        max_batch_pixels: int = 16_000_000,
        on_fatal: Callable[[Exception], None] | None = None,
    ) -> None:
        self.counters = Counters()
        self._limits = (max_batch, max_batch_pixels)
        self._on_fatal = on_fatal
        self._images: FairQueue[_Image] = FairQueue()
        self._questions: FairQueue[_Question] = FairQueue()
        self._lessons: FairQueue[_Lesson] = FairQueue()
        self._pace = Pace()
        self._question_pace = Pace()
        self._caps = BatchCaps()
        self._asking_s = 0.0  # spent on questions since the last batch
        self._owed = 0  # calls whose images were looked at last and that have not asked yet
        self._batch_s = 0.0
        self._looked_s = 0.0  # when the last batch ended
        self._around = 0  # images of the last batch, and those that waited when it ended
        self._patience = 1.0  # how well it has paid to wait for more
        self._taught = False  # since the last batch
        self._busy_until_s = 0.0
        self._failures = 0  # passes without memory, in a row
        self._refusal: Unavailable | None = None
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ovperception-model", daemon=True)
        self._thread.start()

    def encode(
        self,
        models: Sequence[ServedModel],
        picture: ServedPicture,
        terms: Terms,
        *,
        keep_look: bool = False,
    ) -> Future[Done[Seen]]:
        """Queue an image for models of one trunk; cancelling the future takes it out again."""
        return self._put(self._images, _image(models, picture, terms, keep_look=keep_look))

    def encode_and_ask(
        self,
        models: Sequence[ServedModel],
        picture: ServedPicture,
        question: Callable[[Seen], T],
        terms: Terms,
        *,
        keep_look: bool = False,
    ) -> Future[Done[Answered[T]]]:
        """Queue an image and, once it was looked at, a question about it; as `encode` and `ask` do."""
        job = _image(models, picture, terms, keep_look=keep_look, question=question)
        return self._put(self._images, job)

    def ask(self, question: Callable[[], T], terms: Terms) -> Future[Done[T]]:
        """Queue a question, ahead of images."""
        return self._put(self._questions, _Question(ask=question, terms=terms))

    def learn(self, steps: Iterator[int], terms: Terms) -> Future[Done[None]]:
        """Queue the encoding of words, which goes on step by step behind everything else."""
        return self._put(self._lessons, _Lesson(steps=steps, terms=terms))

    def wait_s(self, terms: Terms, *, pixels: int) -> float:
        """About how long an image whose network input has so many pixels would wait.

        Images ahead of it, what is asked of each of them, and the questions that wait already.
        """
        with self._wake:
            ahead = self._images.ahead(terms.client, terms.priority, pixels)
            questions = len(self._questions) + ahead / max(1, pixels)
        busy_s = max(0.0, self._busy_until_s - time.monotonic())
        return ahead * self._pace.s_per_unit + questions * self._question_pace.s_per_unit + busy_s

    def depths(self) -> dict[str, int]:
        """How much waits: ``images``, ``questions`` and ``words``."""
        with self._wake:
            queues = {"images": self._images, "questions": self._questions, "words": self._lessons}
            return {name: len(queue) for name, queue in queues.items()}  # type: ignore[arg-type]

    def forget_pace(self) -> None:
        """Begin to measure anew: what was done so far, to warm up, was not usual."""
        self._pace, self._question_pace = Pace(), Pace()

    def close(self) -> None:
        """Refuse new work, drop what waits, and end the thread after what it is doing."""
        self._refuse_all(closing())
        if self._thread is not threading.current_thread():
            self._thread.join()

    # Any: a future of whatever comes of the job.
    def _put(self, queue: FairQueue[Any], job: Job) -> Future[Any]:
        with self._wake:
            if self._refusal is not None:
                raise self._refusal
            queue.put(job)
            if queue is self._questions and self._owed:
                self._owed -= 1
            self._wake.notify()
        # Not under the lock: a job that has ended meanwhile calls back at once.
        job.when_cancelled(partial(self._forget, queue))
        return job.future

    def _forget(self, queue: FairQueue[Any], job: Job) -> None:
        with self._wake:
            queue.remove(job)

    def _refuse_all(self, refusal: Unavailable) -> None:
        with self._wake:
            self._refusal = refusal
            queues: list[FairQueue[Any]] = [self._images, self._questions, self._lessons]
            waiting = [job for queue in queues for job in queue.clear()]
            self._wake.notify()
        for job in waiting:
            job.refuse(refusal)

    def _run(self) -> None:
        while (work := self._take()) is not None:
            if isinstance(work, _Question):
                self._answer(work)
            elif isinstance(work, _Lesson):
                self._teach(work)
            else:
                self._encode(work)
            del work  # or the last image would live until the next one comes

    def _take(self) -> _Question | _Lesson | list[_Image] | None:
        """The next question, lesson or batch of images; None to end."""
        with self._wake:
            while True:
                while not (self._images or self._questions or self._lessons or self._refusal):
                    self._wake.wait()
                if self._refusal is not None:
                    return None
                self._hand_over()
                turn_s = max(self._batch_s, _SHORTEST_TURN_S)
                if self._questions and not (self._images and self._asking_s >= turn_s):
                    return self._questions.take()
                if self._lessons and not (self._images and self._taught):
                    self._taught = True
                    return self._lessons.take()
                if self._gather():
                    self._asking_s, self._taught = 0.0, False
                    return self._take_batch()

    def _hand_over(self) -> None:
        """Wait, a little, for the questions of the calls that the last batch has let go on."""
        if self._owed and not self._questions:
            patience_s = min(_LONGEST_HANDOVER_S, _HANDOVER_SHARE * self._batch_s)
            self._wake.wait_for(lambda: self._questions or self._refusal, patience_s)
            if not self._questions:
                self._owed = 0

    def _gather(self) -> bool:
        """Wait, a little, for those who come back; False if there is something else to do meanwhile."""
        wanted = min(self._limits[0], self._around)
        found, began_s = len(self._images), time.monotonic()
        share_s = min(_LONGEST_GATHER_S, _GATHER_SHARE * self._batch_s)
        end_s = self._looked_s + self._patience * share_s
        if found >= wanted or self._questions or began_s >= end_s:
            return True
        while 0 < len(self._images) < wanted and (left_s := end_s - time.monotonic()) > 0:
            self._wake.wait(left_s)
            if self._questions or self._refusal is not None:
                return False
        gained = (len(self._images) - found) / found
        paid = gained > (time.monotonic() - began_s) / self._batch_s
        self._patience = 1.0 if paid else max(_LEAST_PATIENCE, self._patience / 2)
        return bool(self._images)

    def _take_batch(self) -> list[_Image]:
        """The image whose turn it is, and others that can go with it."""
        first = self._images.take()
        assert first is not None  # `_take` has seen that some wait
        batch, (most, budget) = [first], self._limits
        most = self._caps.limit(first.key, most)
        # All of one size, so that if one does not fit, none does.
        while len(batch) < most and first.cost * (len(batch) + 1) <= budget:
            other = self._images.take(lambda job: job.key == first.key)
            if other is None:
                break
            batch.append(other)
        cost = first.cost * len(batch)
        self._busy_until_s = time.monotonic() + cost * self._pace.s_per_unit
        return batch

    def _answer(self, job: _Question) -> None:
        if not job.start():
            return
        started = time.monotonic()
        try:
            value = job.ask()
        except Exception as error:
            self._fail(job, error)
        else:
            self.counters.questions += 1
            job.future.set_result(job.answered(value, started))
        spent_s = time.monotonic() - started
        self._question_pace.note(1.0, spent_s)
        self._asking_s += spent_s

    def _teach(self, job: _Lesson) -> None:
        """One step, and back into the queue if there are more."""
        if not job.started:
            if not job.start():
                return
            job.started = True
        started = time.monotonic()
        try:
            left = next(job.steps, 0) if started < job.terms.deadline_s else 0
        except Exception as error:
            self._fail(job, error)
            return
        if not left:
            job.future.set_result(job.done(None, started))
            return
        with self._wake:
            if self._refusal is None:
                self._lessons.put(job)
                return
        job.refuse(closing())

    def _encode(self, batch: Sequence[_Image]) -> None:
        if live := [job for job in batch if job.start()]:
            started = time.monotonic()
            self._look(live)
            self._looked_s = time.monotonic()
            self._batch_s = self._looked_s - started
            self._around = len(live) + len(self._images)
            self._pace.note(sum(job.cost for job in live), self._batch_s)

    def _look(self, batch: Sequence[_Image]) -> None:
        """One pass of the backbone and then the heads; if it fails, each half on its own."""
        started = time.monotonic()
        try:
            seen = self._seen(batch)
        except Exception as error:
            if len(batch) == 1 or is_fatal(error):
                for job in batch:
                    self._fail(job, error)
                return
            if ran_out_of_memory(error):
                self.counters.out_of_memory += 1
                self._caps.failed(batch[0].key, len(batch))
            _log.warning("a batch of %d failed (%s); it is tried in halves", len(batch), error)
        else:
            self._failures = 0
            self._caps.went_well(batch[0].key, len(batch))
            self.counters.images += len(batch)
            for job, value in zip(batch, seen, strict=True):
                self._looked_at(job, job.done(value, started, len(batch)))
            return
        # Outside of the handler: the exception would keep the batch's memory alive while we try again.
        half = len(batch) // 2
        self._look(batch[:half])
        self._look(batch[half:])

    def _looked_at(self, job: _Image, done: Done[Seen]) -> None:
        """Let the call go on; or queue what it asks, as fairly as all questions."""
        if job.question is None:
            self._owed += 1
            job.future.set_result(done)
            return
        asked = partial(job.question, done.value)
        question = _Question(ask=asked, looked=done, terms=job.terms, future=job.future)
        with self._wake:
            refusal = self._refusal
            if refusal is None and not job.future.cancelled():
                self._questions.put(question)
        if refusal is not None:
            job.refuse(refusal)

    def _seen(self, batch: Sequence[_Image]) -> list[Seen]:
        self.counters.passes += 1
        looks = batch[0].models[0].look([job.picture for job in batch])
        scenes: list[dict[int, ServedScene]] = [{} for _ in batch]
        for model in {id(m): m for job in batch for m in job.models}.values():
            asked = [i for i, job in enumerate(batch) if any(m is model for m in job.models)]
            for i, scene in zip(asked, model.scenes([looks[i] for i in asked]), strict=True):
                scenes[i][id(model)] = scene
        return [
            Seen(
                scenes=tuple(found[id(model)] for model in job.models),
                look=look.alone() if job.keep_look else None,
            )
            for job, look, found in zip(batch, looks, scenes, strict=True)
        ]

    def _fail(self, job: Job, error: Exception) -> None:
        """Tell who waits; end everything if the device is lost."""
        if is_fatal(error):
            self._lose_device(error)
            job.refuse(_lost())
            return
        job.refuse(explain(error))
        if ran_out_of_memory(error) and isinstance(job, _Image):
            self.counters.out_of_memory += 1
            self._failures += 1
            if self._failures >= _FAILURES_BEFORE_PROBE:
                self._failures = 0
                self._probe(job.models[0])

    def _probe(self, model: ServedModel) -> None:
        """After images in a row without memory: were they too large, or does nothing fit any more?"""
        try:
            model.look([model.prepare(np.zeros((64, 64, 3), np.uint8))])
        except Exception as error:
            if ran_out_of_memory(error) or is_fatal(error):
                self._lose_device(error)

    def _lose_device(self, error: Exception) -> None:
        if self._refusal is None:
            _log.critical("the device is lost: %s", error)
            self._refuse_all(_lost())
            if self._on_fatal is not None:
                self._on_fatal(error)


def _image(
    models: Sequence[ServedModel],
    picture: ServedPicture,
    terms: Terms,
    *,
    keep_look: bool,
    question: Callable[[Seen], object] | None = None,
) -> _Image:
    size = picture.geometry.padded
    return _Image(
        models=models,
        picture=picture,
        key=(models[0].trunk, size),
        keep_look=keep_look,
        question=question,
        terms=terms,
        cost=size[0] * size[1],
    )


def _lost() -> Unavailable:
    return Unavailable("The server has lost its device", mend="Try another server, or again when it is back")
