"""How much may be in work at once, counted in calls, bytes and pixels; beyond that a call is refused at once.

A refusal costs a caller microseconds, a queue without an end costs everyone their deadlines. No client may
hold all of it, and whoever would wait longer than it has time is told so before any work is done.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Self

from ovperception.errors import DeadlineExceeded, ResourceExhausted, Unavailable

__all__ = ["Admission", "Ticket", "busy"]

_LEAST_RETRY_S, _MOST_RETRY_S = 0.03, 5.0


class Admission:
    """The budget all calls share.

    Args:
        max_requests: Calls in work or waiting.
        max_bytes: Bytes of their requests together.
        max_pixels: Decoded pixels of their images together.
        max_client_requests: Calls of one client; None leaves a quarter of all to others.
        backlog_s: About how long it takes to do what waits, for the advice when to try again.
    """

    def __init__(
        self,
        *,
        max_requests: int,
        max_bytes: int,
        max_pixels: int,
        max_client_requests: int | None = None,
        backlog_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.limits = {"requests": max_requests, "bytes": max_bytes, "pixels": max_pixels}
        self._client_limit = max_client_requests or max(1, max_requests - max_requests // 4)
        self._used = dict.fromkeys(self.limits, 0)
        self._clients: Counter[str] = Counter()
        self._backlog_s = backlog_s
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._closed = False
        self.refused: Counter[str] = Counter()

    @property
    def used(self) -> dict[str, int]:
        """What is taken of ``requests``, ``bytes`` and ``pixels``."""
        with self._lock:
            return dict(self._used)

    def enter(self, nbytes: int, client: str = "") -> Ticket:
        """Take room for one call of `nbytes`; it is given back by the ticket, at the end of its ``with``.

        Raises:
            ResourceExhausted: There is none.
            Unavailable: The server is shutting down.
        """
        ticket = Ticket(self, client)
        ticket.take(requests=1, bytes=nbytes)
        return ticket

    def close(self) -> None:
        """Refuse all further calls; those inside go on."""
        with self._lock:
            self._closed = True

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no call is inside; whether that came about in time."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._used["requests"], timeout_s)

    def take(self, amounts: dict[str, int], client: str = "") -> None:
        """Take all of `amounts` or nothing."""
        with self._lock:
            if self._closed:
                raise Unavailable("The server is shutting down", mend="Try again, or try another server")
            refusal = self._refusal(amounts, client)
            if refusal is None:
                for name, amount in amounts.items():
                    self._used[name] += amount
                self._clients[client] += amounts.get("requests", 0)
                return
        reason, error = refusal
        self.refused[reason] += 1
        error.retry_after_ms = _retry_after_ms(self._backlog_s() / 2)
        raise error

    def give(self, amounts: dict[str, int], client: str = "") -> None:
        """Give back what was taken."""
        with self._lock:
            for name, amount in amounts.items():
                self._used[name] -= amount
            self._clients[client] -= amounts.get("requests", 0)
            if not self._clients[client]:
                del self._clients[client]
            if not self._used["requests"]:
                self._idle.notify_all()

    def check_wait(self, wait_s: float, left_s: float, limit_s: float) -> None:
        """Refuse a call that would wait for longer than it has time, or than the server lets anybody wait.

        Its own deadline is its own affair: who cannot be answered in time is told now what it would be told
        later, and does not come back. A queue too long for anybody is overload, and worth another try.

        Args:
            wait_s: About how long it would wait.
            left_s: How long it has.
            limit_s: How long anybody may wait.

        Raises:
            ResourceExhausted: It would wait longer than anybody may.
            DeadlineExceeded: It would wait longer than it has.
        """
        if wait_s > limit_s:
            self.refused["wait"] += 1
            raise busy(
                "The server is busy: the queue is too long",
                expected=f"a wait of at most {limit_s:.3f} s",
                got=f"about {wait_s:.3f} s",
                retry_s=wait_s - limit_s,
            )
        if wait_s > left_s:
            self.refused["deadline"] += 1
            raise DeadlineExceeded(
                "The server is busy: the answer would come too late",
                expected=f"a wait of at most {left_s:.3f} s",
                got=f"about {wait_s:.3f} s",
                mend="Allow more time, or send fewer requests at once",
            )

    def _refusal(self, amounts: dict[str, int], client: str) -> tuple[str, ResourceExhausted] | None:
        for name, amount in amounts.items():
            if self._used[name] + amount > self.limits[name]:
                what = f"The server is busy: too many {name} are waiting"
                return name, busy(what, expected=f"at most {self.limits[name]} {name} at once")
        if self._clients[client] + amounts.get("requests", 0) > self._client_limit:
            what = "You have too many requests waiting"
            return "client", busy(
                what, expected=f"at most {self._client_limit} requests of one client at once"
            )
        return None


class Ticket:
    """What one call holds of the budget."""

    __slots__ = ("_admission", "_client", "_held")

    def __init__(self, admission: Admission, client: str = "") -> None:
        self._admission = admission
        self._client = client
        self._held: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def take(self, **amounts: int) -> None:
        """Take more of the budget."""
        self._admission.take(amounts, self._client)
        for name, amount in amounts.items():
            self._held[name] = self._held.get(name, 0) + amount

    def release(self) -> None:
        """Give everything back."""
        held, self._held = self._held, {}
        self._admission.give(held, self._client)


def busy(what: str, *, expected: str, got: object = None, retry_s: float = 0.0) -> ResourceExhausted:
    """A refusal that tells when to come back."""
    error = ResourceExhausted(
        what, expected=expected, got=got, mend="Try again in a moment, or send fewer requests at once"
    )
    error.retry_after_ms = _retry_after_ms(retry_s)
    return error


def _retry_after_ms(retry_s: float) -> int:
    # Scattered, the shortest as well, so that those who were refused together do not come back together.
    return int(1e3 * min(max(retry_s, _LEAST_RETRY_S) * random.uniform(0.75, 1.25), _MOST_RETRY_S))
