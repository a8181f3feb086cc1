"""Whether anybody still waits for an answer, and waiting for its stages only as long as somebody does."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TypeVar

import grpc

from ovperception.errors import DeadlineExceeded
from ovperception.v1 import results_pb2
from serving.jobs import Done
from serving.outcomes import Outcome

__all__ = ["CallCancelled", "Presence"]

T = TypeVar("T")


class CallCancelled(Exception):
    """The caller has left; nobody reads the answer."""


class Presence:
    """The caller of one call, who may leave and whose time may be up.

    Args:
        context: Tells when it leaves.
        deadline_s: Until when it waits, on `time.monotonic`'s clock.
        timing: The time its work spent in queues is added to this.
    """

    def __init__(self, context: grpc.ServicerContext, deadline_s: float, timing: results_pb2.Timing) -> None:
        self._deadline_s = deadline_s
        self._timing = timing
        self._left = False
        # Held while nothing has happened; much cheaper to wait for than an event.
        self._wake = threading.Lock()
        self._wake.acquire()
        context.add_callback(self._leave)
        self._left |= not context.is_active()

    def check(self) -> None:
        """Go on only if somebody waits for the answer.

        Raises:
            CallCancelled, DeadlineExceeded: Nobody does.
        """
        if self._left:
            raise CallCancelled
        if time.monotonic() >= self._deadline_s:
            raise DeadlineExceeded("The answer was not ready in time", mend="Allow more time")

    def wait(self, outcome: Outcome[Done[T]]) -> Done[T]:
        """Wait for a stage; leave it to itself as soon as the caller has left or its time is up.

        Raises:
            CallCancelled, DeadlineExceeded: Nobody waits for it any more.
            Exception: What the stage raises.
        """
        outcome.when_ended(self._rouse)
        try:
            while not outcome.ended:
                self.check()
                self._wake.acquire(timeout=max(0.0, self._deadline_s - time.monotonic()))
            done = outcome.result()
        except CancelledError:
            raise CallCancelled from None
        except (CallCancelled, DeadlineExceeded):
            outcome.cancel()
            raise
        self._timing.queue_ms += done.queue_ms
        return done

    def _leave(self) -> None:
        """Called by gRPC, from another thread, when the call ends in whatever way."""
        self._left = True
        self._rouse()

    def _rouse(self) -> None:
        """Something has happened: the thread that waits shall look."""
        with suppress(RuntimeError):  # told already
            self._wake.release()
