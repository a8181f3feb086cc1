"""When to try again: only what may go better, only while most calls succeed, and only in the time left."""

from __future__ import annotations

import random
import threading
import time

from ovperception.errors import OVPError, ResourceExhausted, Unavailable

__all__ = ["Reconnects", "Retries"]

_ATTEMPTS = 4
_FIRST_S, _LONGEST_S = 0.1, 1.0
_TOKENS, _TOKENS_PER_SUCCESS = 10.0, 0.1


class Retries:
    """The budget of one client: each further try takes a token, each success gives back a tenth of one.

    Without it, many clients that all try again keep a server down that would recover.
    """

    def __init__(self) -> None:
        self._tokens = _TOKENS
        self._lock = threading.Lock()

    def success(self) -> None:
        """A call went well."""
        with self._lock:
            self._tokens = min(_TOKENS, self._tokens + _TOKENS_PER_SUCCESS)

    def delay_s(self, error: OVPError, attempt: int, left_s: float) -> float | None:
        """How long to wait before another try; None if there is to be none.

        Args:
            error: What the last try ended with. A server that is out of room must say when to come again.
            attempt: How many tries there were.
            left_s: Until the deadline.
        """
        worth = isinstance(error, Unavailable) or (
            isinstance(error, ResourceExhausted) and error.retry_after_ms
        )
        if not worth or attempt >= _ATTEMPTS:
            return None
        said_s = error.retry_after_ms / 1000
        # Not all at the same moment, and never earlier than the server says.
        wait_s = (said_s or min(_LONGEST_S, _FIRST_S * 2 ** (attempt - 1))) * random.uniform(1.0, 1.25)
        with self._lock:
            if wait_s >= left_s or self._tokens < _TOKENS / 2:
                return None
            self._tokens -= 1
        return wait_s


class Reconnects:
    """When one stream may be made again: until it has had no reply for so long.

    Args:
        patience_s: How long.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.success()

    def success(self) -> None:
        """A frame was answered."""
        self._tries = 0
        self._failing_since_s = 0.0

    def delay_s(self, error: OVPError) -> float | None:
        """How long to wait before connecting again; None if that would not help, or has not for too long."""
        now = time.monotonic()
        if not self._tries:
            self._failing_since_s = now
        self._tries += 1
        worth = isinstance(error, Unavailable) or (
            isinstance(error, ResourceExhausted) and error.retry_after_ms
        )
        if not worth:
            return None
        said_s = error.retry_after_ms / 1000
        wait_s = (said_s or min(_LONGEST_S, _FIRST_S * 2 ** (self._tries - 1))) * random.uniform(1.0, 1.25)
        return wait_s if now + wait_s < self._failing_since_s + self._patience_s else None
