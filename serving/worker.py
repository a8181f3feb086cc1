"""The one thread that runs models: encodes images in batches, and answers questions about them in between.

Images wait in one queue and questions in another. A question costs a fraction of an image, so questions go
first, except that after a run of them an image that waits gets its turn. There is no timer: a batch is what
queued up while the thread was busy, which costs a lone caller nothing.

One thread because compiled modules and CUDA graphs must be called from the thread that made them, and
because on a CPU two forward passes at once are slower than one after the other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import DeadlineExceeded, OVPError, ResourceExhausted, Unavailable
from serving.models import ServedModel, ServedScene

__all__ = ["Done", "Worker"]

T = TypeVar("T")
_QUESTIONS_IN_A_ROW = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Generic[T]):
    """A finished piece of work and what it cost."""

    value: T
    queue_ms: float
    run_ms: float
    batch_size: int = 1


@dataclass(slots=True, kw_only=True)
class _Job:
    deadline_s: float
    queued_s: float = field(default_factory=time.monotonic)
    future: Future[Any] = field(default_factory=Future)  # of Done

    def start(self) -> bool:
        """Whether somebody still waits for it."""
        if not self.future.set_running_or_notify_cancel():
            return False
        if time.monotonic() < self.deadline_s:
            return True
        what = "The deadline passed before the model was free"
        self.future.set_exception(DeadlineExceeded(what, mend="Allow more time"))
        return False


@dataclass(slots=True, kw_only=True)
class _Image(_Job):
    model: ServedModel
    pixels: NDArray[np.uint8]
    key: tuple[str, tuple[int, int]]  # what images of one batch have in common: model and network size


@dataclass(slots=True, kw_only=True)
class _Question(_Job):
    ask: Callable[[], object]


class Worker:
    """The thread and its queues.

    Args:
        max_batch: Most images in one pass through a backbone.
    """

    def __init__(self, *, max_batch: int = 8) -> None:
        self._max_batch = max_batch
        self._images: deque[_Image] = deque()
        self._questions: deque[_Question] = deque()
        self._in_a_row = 0
        self._closed = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ovperception-model", daemon=True)
        self._thread.start()

    def encode(
        self, model: ServedModel, pixels: NDArray[np.uint8], deadline_s: float
    ) -> Future[Done[ServedScene]]:
        """Queue an image; `deadline_s` is on `time.monotonic`'s clock."""
        network = model.preprocessing.geometry((pixels.shape[0], pixels.shape[1])).padded
        job = _Image(model=model, pixels=pixels, key=(model.name, network), deadline_s=deadline_s)
        self._put(job)
        return job.future

    def ask(self, question: Callable[[], T], deadline_s: float) -> Future[Done[T]]:
        """Queue a question, ahead of all images."""
        job = _Question(ask=question, deadline_s=deadline_s)
        self._put(job)
        return job.future

    def close(self) -> None:
        """Refuse new work, drop what waits, and end the thread after what it is doing."""
        with self._wake:
            self._closed = True
            waiting: list[_Job] = [*self._images, *self._questions]
            self._images.clear()
            self._questions.clear()
            self._wake.notify()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(_closing())
        self._thread.join()

    def _put(self, job: _Image | _Question) -> None:
        with self._wake:
            if self._closed:
                raise _closing()
            if isinstance(job, _Question):
                self._questions.append(job)
            else:
                self._images.append(job)
            self._wake.notify()

    def _run(self) -> None:
        while (work := self._take()) is not None:
            if isinstance(work, _Question):
                self._answer(work)
            else:
                self._encode(work)
            del work  # or the last image would live until the next one comes

    def _take(self) -> _Question | list[_Image] | None:
        """The next question or batch of images; None to end."""
        with self._wake:
            while not (self._images or self._questions or self._closed):
                self._wake.wait()
            if self._closed:
                return None
            if self._questions and not (self._images and self._in_a_row >= _QUESTIONS_IN_A_ROW):
                self._in_a_row += 1
                return self._questions.popleft()
            self._in_a_row = 0
            return self._take_batch()

    def _take_batch(self) -> list[_Image]:
        """The image that waits longest, and others like it."""
        key = self._images[0].key
        batch = [job for job in self._images if job.key == key][: self._max_batch]
        taken = {id(job) for job in batch}
        self._images = deque(job for job in self._images if id(job) not in taken)
        return batch

    def _answer(self, job: _Question) -> None:
        if not job.start():
            return
        started = time.monotonic()
        try:
            value = job.ask()
        except Exception as error:
            job.future.set_exception(_explain(error))
            return
        job.future.set_result(_done(value, job, started))

    def _encode(self, batch: Sequence[_Image]) -> None:
        if live := [job for job in batch if job.start()]:
            self._encode_live(live)

    def _encode_live(self, batch: Sequence[_Image]) -> None:
        started = time.monotonic()
        try:
            scenes = batch[0].model.encode_batch([job.pixels for job in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(_explain(error))
                return
            _log.warning("a batch of %d failed (%s); each image is tried alone", len(batch), error)
        else:
            for job, scene in zip(batch, scenes, strict=True):
                job.future.set_result(_done(scene, job, started, len(batch)))
            return
        # Outside of the handler: the exception would keep the batch's memory alive while we try again.
        for job in batch:
            self._encode_live([job])


def _done(value: T, job: _Job, started: float, batch_size: int = 1) -> Done[T]:
    return Done(
        value=value,
        queue_ms=1e3 * (started - job.queued_s),
        run_ms=1e3 * (time.monotonic() - started),
        batch_size=batch_size,
    )


def _explain(error: Exception) -> Exception:
    """An error of ours for what is nobody's bug."""
    if not isinstance(error, OVPError) and type(error).__name__ == "OutOfMemoryError":  # torch's
        return ResourceExhausted("The device ran out of memory", mend="Send a smaller image, or try again")
    return error


def _closing() -> Unavailable:
    return Unavailable("The server is shutting down", mend="Try again, or try another server")
