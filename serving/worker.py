"""The one thread that runs models: looks at images in batches, and answers questions about them in between.

An image may bring a question along, which is asked when the image was looked at, or queued if others were
first: who asks one thing of one image waits for this thread once. `serving.turns` tells what is next.

One thread because compiled modules and CUDA graphs must be called from the thread that made them, and
because on a CPU two forward passes at once are slower than one after the other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from ovperception.errors import Unavailable
from serving.batch_caps import BatchCaps
from serving.jobs import Done, Job, Terms
from serving.model_jobs import Answered, ImageJob, LessonJob, QuestionJob, Seen, image_job
from serving.models import ServedModel, ServedPicture
from serving.outcomes import Outcome
from serving.passes import Counters, Passes
from serving.turns import Turns

__all__ = ["Worker"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


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
        self._on_fatal = on_fatal
        caps = BatchCaps()
        self._turns = Turns(max_batch=max_batch, max_batch_pixels=max_batch_pixels, caps=caps)
        self._passes = Passes(self.counters, caps, looked_at=self._looked_at, lose_device=self._lose_device)
        self._brought: list[QuestionJob] = []  # by the images of the last batch
        self._thread = threading.Thread(target=self._run, name="ovperception-model", daemon=True)
        self._thread.start()

    def encode(
        self,
        models: Sequence[ServedModel],
        picture: ServedPicture,
        terms: Terms,
        *,
        keep_look: bool = False,
    ) -> Outcome[Done[Seen]]:
        """Queue an image for models of one trunk; cancelling what is returned takes it out again."""
        return self._put(image_job(models, picture, terms, keep_look=keep_look))

    def encode_and_ask(
        self,
        models: Sequence[ServedModel],
        picture: ServedPicture,
        question: Callable[[Seen], T],
        terms: Terms,
        *,
        keep_look: bool = False,
    ) -> Outcome[Done[Answered[T]]]:
        """Queue an image and, once it was looked at, a question about it; as `encode` and `ask` do."""
        return self._put(image_job(models, picture, terms, keep_look=keep_look, question=question))

    def ask(self, question: Callable[[], T], terms: Terms) -> Outcome[Done[T]]:
        """Queue a question, ahead of images."""
        return self._put(QuestionJob(ask=question, terms=terms))

    def learn(self, steps: Iterator[int], terms: Terms) -> Outcome[Done[None]]:
        """Queue the encoding of words, which goes on step by step behind everything else."""
        return self._put(LessonJob(steps=steps, terms=terms))

    def wait_s(self, terms: Terms, *, pixels: int) -> float:
        """About how long an image whose network input has so many pixels would wait."""
        return self._turns.wait_s(terms, pixels=pixels)

    def depths(self) -> dict[str, int]:
        """How much waits: ``images``, ``questions`` and ``words``."""
        return self._turns.depths()

    def forget_pace(self) -> None:
        """Begin to measure anew: what was done so far, to warm up, was not usual."""
        self._turns.forget_pace()

    def close(self) -> None:
        """Refuse new work, drop what waits, and end the thread after what it is doing."""
        self._turns.close()
        if self._thread is not threading.current_thread():
            self._thread.join()

    # Any: whatever comes of the job.
    def _put(self, job: Job) -> Outcome[Any]:
        self._turns.put(job)
        return job.outcome

    def _run(self) -> None:
        while (work := self._turns.take()) is not None:
            if isinstance(work, QuestionJob):
                self._answer(work)
            elif isinstance(work, LessonJob):
                self._teach(work)
            else:
                self._encode(work)
            del work  # or the last image would live until the next one comes

    def _answer(self, job: QuestionJob) -> None:
        if not job.start():
            return
        started = time.monotonic()
        try:
            value = job.ask()
        except Exception as error:
            self._passes.fail(job, error)
        else:
            self.counters.questions += 1
            job.outcome.give(job.answered(value, started))
        self._turns.asked(time.monotonic() - started)

    def _teach(self, job: LessonJob) -> None:
        """One step, and back into the queue if there are more."""
        if not job.started:
            if not job.start():
                return
            job.started = True
        started = time.monotonic()
        try:
            left = next(job.steps, 0) if started < job.terms.deadline_s else 0
        except Exception as error:
            self._passes.fail(job, error)
            return
        if left:
            self._turns.put_next(job)
        else:
            job.outcome.give(job.done(None, started))

    def _encode(self, batch: Sequence[ImageJob]) -> None:
        if live := [job for job in batch if job.start()]:
            started = time.monotonic()
            self._passes.look(live)
            self._turns.looked(len(live), sum(job.cost for job in live), time.monotonic() - started)
            self._answer_brought()

    def _answer_brought(self) -> None:
        """Ask what the batch has brought along; behind others, if these wait."""
        brought, self._brought = self._brought, []
        for job in brought:
            if self._turns.may_ask():
                self._answer(job)
            else:
                self._turns.put_next(job)

    def _looked_at(self, job: ImageJob, done: Done[Seen]) -> None:
        """Let the call go on; or remember what it asks."""
        if job.question is None:
            self._turns.owe()
            job.outcome.give(done)
            return
        asked = partial(job.question, done.value)
        self._brought.append(QuestionJob(ask=asked, looked=done, terms=job.terms, outcome=job.outcome))

    def _lose_device(self, error: Exception) -> Unavailable:
        """End everything, once; what callers are told."""
        lost = Unavailable(
            "The server has lost its device", mend="Try another server, or again when it is back"
        )
        if self._turns.open:
            _log.critical("the device is lost: %s", error)
            self._turns.close(lost)
            if self._on_fatal is not None:
                self._on_fatal(error)
        return lost
