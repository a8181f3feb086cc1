"""How much may be in work at once, counted in calls, bytes and pixels; beyond that a call is refused at once.

A refusal costs a caller microseconds, a queue without an end costs everyone their deadlines.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ovperception.errors import ResourceExhausted, Unavailable

__all__ = ["Admission", "Ticket"]


class Admission:
    """The budget all calls share.

    Args:
        max_requests: Calls in work or waiting.
        max_bytes: Bytes of their requests together.
        max_pixels: Decoded pixels of their images together.
    """

    def __init__(self, *, max_requests: int, max_bytes: int, max_pixels: int) -> None:
        self._limits = {"requests": max_requests, "bytes": max_bytes, "pixels": max_pixels}
        self._used = dict.fromkeys(self._limits, 0)
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._closed = False

    @contextmanager
    def enter(self, nbytes: int) -> Iterator[Ticket]:
        """Hold room for one call of `nbytes`.

        Raises:
            ResourceExhausted: There is none.
            Unavailable: The server is shutting down.
        """
        ticket = Ticket(self)
        try:
            ticket.take(requests=1, bytes=nbytes)
            yield ticket
        finally:
            ticket.release()

    def close(self) -> None:
        """Refuse all further calls; those inside go on."""
        with self._lock:
            self._closed = True

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no call is inside; whether that came about in time."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._used["requests"], timeout_s)

    def take(self, amounts: dict[str, int]) -> None:
        """Take all of `amounts` or nothing."""
        with self._lock:
            if self._closed:
                raise Unavailable("The server is shutting down", mend="Try again, or try another server")
            for name, amount in amounts.items():
                if self._used[name] + amount > self._limits[name]:
                    raise ResourceExhausted(
                        f"The server is busy: too many {name} are waiting",
                        expected=f"at most {self._limits[name]} {name} at once",
                        mend="Try again in a moment, or send fewer requests at once",
                    )
            for name, amount in amounts.items():
                self._used[name] += amount

    def give(self, amounts: dict[str, int]) -> None:
        """Give back what was taken."""
        with self._lock:
            for name, amount in amounts.items():
                self._used[name] -= amount
            if not self._used["requests"]:
                self._idle.notify_all()


class Ticket:
    """What one call holds of the budget."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held: dict[str, int] = {}

    def take(self, **amounts: int) -> None:
        """Take more of the budget."""
        self._admission.take(amounts)
        for name, amount in amounts.items():
            self._held[name] = self._held.get(name, 0) + amount

    def release(self) -> None:
        """Give everything back."""
        self._admission.give(self._held)
        self._held = {}
