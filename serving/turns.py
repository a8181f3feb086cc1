"""What waits for the model's thread, and what of it is next.

A batch is what queued up while the thread was busy, which costs a lone caller nothing. Whose image begins it
is a matter of fairness; it is filled with images of the same trunk and network size, whatever model they are
meant for and whatever they will be asked, up to a number of images and of pixels. Images of other sizes are
not padded to join it: their features would depend on their neighbours.

A question costs a fraction of an image, so questions go first, but when images wait for no longer than the
last batch took. The calls that are yet to ask of what was just looked at get a moment to wake up before the
next batch begins, or their answers would have to wait for all of that too. New words are encoded last, a few
at a time between two batches.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

from ovperception.errors import Unavailable
from serving.batch_caps import BatchCaps
from serving.fairness import FairQueue
from serving.gathering import Gathering
from serving.jobs import Job, Pace, Terms, closing
from serving.model_jobs import ImageJob, LessonJob, QuestionJob

__all__ = ["Turns"]

_SHORTEST_TURN_S = 0.02
_LONGEST_HANDOVER_S = 0.005
_HANDOVER_SHARE = 0.1  # of what the last batch took


class Turns:
    """The queues of the model's thread. Safe to use from several threads; one of them takes.

    Args:
        max_batch: Most images in one batch.
        max_batch_pixels: Most pixels of their network inputs together; an image alone may have more.
        caps: Batches that have been too large.
    """

    def __init__(self, *, max_batch: int, max_batch_pixels: int, caps: BatchCaps) -> None:
        self._limits = (max_batch, max_batch_pixels)
        self._caps = caps
        self._images: FairQueue[ImageJob] = FairQueue()
        self._questions: FairQueue[QuestionJob] = FairQueue()
        self._lessons: FairQueue[LessonJob] = FairQueue()
        # Any: each of another kind of job.
        self._queues: dict[type[Job], FairQueue[Any]] = {
            ImageJob: self._images,
            QuestionJob: self._questions,
            LessonJob: self._lessons,
        }
        self._pace = Pace()
        self._question_pace = Pace()
        self._gathering = Gathering()
        self._asking_s = 0.0  # spent on questions since the last batch
        self._owed = 0  # calls whose images were looked at last and that have not asked yet
        self._taught = False  # since the last batch
        self._busy_until_s = 0.0
        self._awaited = 0  # images that wake up the one who takes
        self._refusal: Unavailable | None = None
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)

    @property
    def open(self) -> bool:
        """Whether work is taken."""
        return self._refusal is None

    def put(self, job: Job) -> None:
        """Queue a job; cancelling its outcome takes it out again.

        Raises:
            Unavailable: No work is taken any more.
        """
        # First, as nobody can cancel it yet: who is woken up shall not have to wait for what is left to do.
        job.outcome.when_cancelled(partial(self._forget, job))
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            self._queues[type(job)].put(job)
            if self._owed and type(job) is QuestionJob:
                self._owed -= 1
            if type(job) is not ImageJob or len(self._images) >= self._awaited:
                self._wake.notify()

    def put_next(self, job: QuestionJob | LessonJob) -> None:
        """Queue what follows from a job that was taken, unless who wanted that has left."""
        with self._lock:
            refusal = self._refusal
            if refusal is None and not job.outcome.cancelled:
                self._queues[type(job)].put(job)
        if refusal is not None:
            job.outcome.refuse(refusal)

    def owe(self) -> None:
        """A call was let go on that will ask about its image."""
        self._owed += 1

    def take(self) -> QuestionJob | LessonJob | list[ImageJob] | None:
        """Wait for the next question, lesson or batch of images; None when no work is taken any more."""
        with self._lock:
            self._busy_until_s = 0.0  # what was thought of the last batch holds nobody up any more
            while True:
                while not (self._images or self._questions or self._lessons or self._refusal):
                    self._wake.wait()
                if self._refusal is not None:
                    return None
                self._hand_over()
                if self._questions and self._questions_first():
                    return self._questions.take()
                if self._lessons and not (self._images and self._taught):
                    self._taught = True
                    return self._lessons.take()
                if self._gather():
                    self._asking_s, self._taught = 0.0, False
                    return self._take_batch()

    def may_ask(self) -> bool:
        """Whether a question that follows from the last batch is next, and need not be queued."""
        with self._lock:
            return self._refusal is None and not self._questions and self._questions_first()

    def looked(self, images: int, cost: float, spent_s: float) -> None:
        """A batch of so many images was looked at."""
        self._gathering.looked(images, len(self._images), spent_s)
        self._pace.note(cost, spent_s)

    def asked(self, spent_s: float) -> None:
        """A question was asked."""
        self._question_pace.note(1.0, spent_s)
        self._asking_s += spent_s

    def wait_s(self, terms: Terms, *, pixels: int) -> float:
        """About how long an image whose network input has so many pixels would wait.

        Images ahead of it, what is asked of each of them, and the questions that wait already.
        """
        with self._lock:
            ahead = self._images.ahead(terms.client, terms.priority, pixels)
            questions = len(self._questions) + ahead / max(1, pixels)
        busy_s = max(0.0, self._busy_until_s - time.monotonic())
        return ahead * self._pace.s_per_unit + questions * self._question_pace.s_per_unit + busy_s

    def depths(self) -> dict[str, int]:
        """How much waits: ``images``, ``questions`` and ``words``."""
        with self._lock:
            return dict(zip(("images", "questions", "words"), map(len, self._queues.values()), strict=True))

    def forget_pace(self) -> None:
        """Begin to measure anew: what was done so far was not usual."""
        self._pace, self._question_pace = Pace(), Pace()

    def close(self, refusal: Unavailable | None = None) -> None:
        """Take no more work, and refuse what waits; None: because the server ends."""
        with self._lock:
            self._refusal = refusal = refusal or closing()
            waiting: list[Job] = [job for queue in self._queues.values() for job in queue.clear()]
            self._wake.notify()
        for job in waiting:
            job.outcome.refuse(refusal)

    def _questions_first(self) -> bool:
        """Unless images have waited for as long as the last batch took."""
        return not self._images or self._asking_s < max(self._gathering.batch_s, _SHORTEST_TURN_S)

    def _forget(self, job: Job) -> None:
        with self._lock:
            self._queues[type(job)].remove(job)

    def _hand_over(self) -> None:
        """Wait, a little, for the questions of the calls that the last batch has let go on."""
        if self._owed and not self._questions:
            patience_s = min(_LONGEST_HANDOVER_S, _HANDOVER_SHARE * self._gathering.batch_s)
            self._wake.wait_for(lambda: self._questions or self._refusal, patience_s)
            if not self._questions:
                self._owed = 0

    def _gather(self) -> bool:
        """Wait, a little, for those who come back; False if there is something else to do meanwhile."""
        wanted = self._gathering.wanted(self._limits[0])
        found, began_s = len(self._images), time.monotonic()
        end_s = self._gathering.end_s()
        if found >= wanted or self._questions or began_s >= end_s:
            return True
        self._awaited = wanted
        try:
            while 0 < len(self._images) < wanted and (left_s := end_s - time.monotonic()) > 0:
                self._wake.wait(left_s)
                if self._questions or self._refusal is not None:
                    return False
        finally:
            self._awaited = 0
        self._gathering.waited(time.monotonic() - began_s, found=found, now=len(self._images))
        return bool(self._images)

    def _take_batch(self) -> list[ImageJob]:
        """The image whose turn it is, and others that can go with it."""
        first = self._images.take()
        assert first is not None  # `take` has seen that some wait
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
