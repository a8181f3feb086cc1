"""The few threads in which files become pixels and pixels network input.

Decoding and resizing let go of Python's lock, so they run beside the model's thread. They are few because a
picture takes ten to a hundred times the memory of its file: as many are in the making as there are threads,
whatever number of calls is waiting; and what waits is chosen as fairly as for the model.

While one of the threads would be idle, a call decodes a small picture itself: to hand it over and back takes
longer than some of them take to decode.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from serving.fairness import FairQueue
from serving.faults import explain
from serving.jobs import Done, Job, Pace, Terms, closing
from serving.outcomes import Outcome

__all__ = ["Decoders"]

T = TypeVar("T")
# A call cannot leave while it decodes a picture itself; this many pixels take ten milliseconds or two.
_MOST_PIXELS_AT_ONCE = 2**21


@dataclass(slots=True, kw_only=True, eq=False)
class _Decoding(Job):
    work: Callable[[], object]


class Decoders:
    """The threads and their queue.

    Args:
        threads: How many.
    """

    def __init__(self, threads: int) -> None:
        self._queue: FairQueue[_Decoding] = FairQueue()
        self._pace = Pace()
        self._most = threads
        self._busy = 0  # pictures in the making
        self._closed = False
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._threads = [
            threading.Thread(target=self._run, name=f"ovperception-decode-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def do_at_once(self, work: Callable[[], T], *, pixels: int) -> Done[T] | None:
        """Do work on a picture of so many pixels here and now; None if it is large, or others are before it.

        Raises:
            Exception: What `work` raises.
        """
        if pixels > _MOST_PIXELS_AT_ONCE:
            return None
        with self._lock:
            if self._closed:
                raise closing()
            if self._busy >= self._most or self._queue:
                return None
            self._busy += 1
        started = time.monotonic()
        try:
            value = work()
        except Exception as error:
            explained = explain(error)
            if explained is error:
                raise
            raise explained from error
        finally:
            self._end()
        spent_s = time.monotonic() - started
        self._pace.note(pixels, spent_s)
        return Done(value=value, queue_ms=0.0, run_ms=1e3 * spent_s)

    def submit(self, work: Callable[[], T], terms: Terms, *, pixels: int) -> Outcome[Done[T]]:
        """Queue work on a picture of so many pixels; cancelling what is returned takes it out again."""
        job = _Decoding(work=work, terms=terms, cost=pixels)
        job.outcome.when_cancelled(partial(self._forget, job))
        with self._lock:
            if self._closed:
                raise closing()
            self._queue.put(job)
            self._wake.notify()
        return job.outcome

    def wait_s(self, terms: Terms, *, pixels: int) -> float:
        """About how long a picture of so many pixels would wait."""
        with self._lock:
            ahead = self._queue.ahead(terms.client, terms.priority, pixels)
        return ahead * self._pace.s_per_unit / len(self._threads)

    def close(self) -> None:
        """Refuse new work, drop what waits, and end the threads after what they are doing."""
        with self._lock:
            self._closed = True
            waiting = self._queue.clear()
            self._wake.notify_all()
        for job in waiting:
            job.outcome.refuse(closing())
        for thread in self._threads:
            thread.join()

    def _forget(self, job: _Decoding) -> None:
        with self._lock:
            self._queue.remove(job)

    def _run(self) -> None:
        while (job := self._take()) is not None:
            try:
                self._do(job)
            finally:
                self._end()
            del job  # or the last picture would live until the next one comes

    def _take(self) -> _Decoding | None:
        with self._lock:
            while not ((self._queue and self._busy < self._most) or self._closed):
                self._wake.wait()
            if self._closed:
                return None
            self._busy += 1
            return self._queue.take()

    def _end(self) -> None:
        with self._lock:
            self._busy -= 1
            if self._queue:
                self._wake.notify()

    def _do(self, job: _Decoding) -> None:
        if not job.start():
            return
        started = time.monotonic()
        try:
            value = job.work()
        except Exception as error:
            job.outcome.refuse(explain(error))
            return
        self._pace.note(job.cost, time.monotonic() - started)
        job.outcome.give(job.done(value, started))
