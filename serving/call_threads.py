"""The threads in which calls are worked on.

Who became idle last works next: what it needs is still in the core's cache. `ThreadPoolExecutor` wakes up who
waits longest, and makes a whole future of each call, of which gRPC asks to be told the end.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["CallThreads", "TakenCall"]

_log = logging.getLogger(__name__)


class TakenCall:
    """A call that was handed over: as much of a future as gRPC asks for."""

    __slots__ = ("_callbacks", "_ended", "_work")

    def __init__(self, work: Callable[[], object]) -> None:
        self._work: Callable[[], object] | None = work
        self._callbacks: list[Callable[[TakenCall], object]] = []
        self._ended = False

    def add_done_callback(self, callback: Callable[[TakenCall], object]) -> None:
        """Call `callback` once when the call has ended."""
        self._callbacks.append(callback)
        if self._ended:
            self._tell()

    def run(self) -> None:
        """Work on it; what it needed is let go of with its end."""
        work, self._work = self._work, None
        assert work is not None
        try:
            work()
        except BaseException:  # gRPC answers what a method raises; the thread must live on in any case
            _log.exception("a call failed outside of its method")
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        while True:
            try:
                callback = self._callbacks.pop()
            except IndexError:  # or another thread has it
                return
            callback(self)


class CallThreads:
    """The pool; a thread is made when none is idle, up to a number.

    Args:
        most: How many there may be.
        name: What their names begin with.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[TakenCall] = deque()
        self._idle: list[threading.Lock] = []  # each held, and waited for by its thread
        self._threads: list[threading.Thread] = []
        self._closed = False

    # Any: whatever gRPC wants to have called.
    def submit(self, work: Callable[..., object], *arguments: Any) -> TakenCall:
        """Have `work` done by the thread that became idle last.

        Raises:
            RuntimeError: They have been shut down.
        """
        taken = TakenCall(partial(work, *arguments))
        with self._lock:
            if self._closed:
                raise RuntimeError("no calls are taken after the threads were shut down")
            self._waiting.append(taken)
            sleeper = self._idle.pop() if self._idle else None
            if sleeper is None and len(self._threads) < self._most:
                self._add_thread()
        if sleeper is not None:
            sleeper.release()
        return taken

    def shutdown(self) -> None:
        """Take no more calls, and wait for the end of those that were taken."""
        with self._lock:
            self._closed = True
            sleepers, self._idle = self._idle, []
        for sleeper in sleepers:
            sleeper.release()
        for thread in self._threads:
            thread.join()

    def _add_thread(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        wake = threading.Lock()
        wake.acquire()
        while True:
            with self._lock:
                taken = self._waiting.popleft() if self._waiting else None
                if taken is None:
                    if self._closed:
                        return
                    self._idle.append(wake)
            if taken is None:
                wake.acquire()
            else:
                taken.run()
            del taken  # or the last call would live until the next one comes
