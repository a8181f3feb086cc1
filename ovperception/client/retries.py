"""When to try again: only what may go better, only while most calls succeed, and only in the time left."""

from __future__ import annotations

import random
import threading
import time

from ovperception.errors import OVPError, ResourceExhausted, Unavailable

__all__ = ["Reconnects", "Retries", "Tries"]

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

    def tries(self, timeout_s: float) -> Tries:
        """Begin a call that may take so long in all."""
        return Tries(self, timeout_s)

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
        if attempt >= _ATTEMPTS or not _is_worth_it(error):
            return None
        wait_s = _wait_s(error, attempt)
        with self._lock:
            if wait_s >= left_s or self._tokens < _TOKENS / 2:
                return None
            self._tokens -= 1
        return wait_s


class Tries:
    """The tries of one call. Made by `Retries.tries`.

    Args:
        retries: What further ones are taken from.
        timeout_s: How long they may take in all.
    """

    def __init__(self, retries: Retries, timeout_s: float) -> None:
        self._retries = retries
        self._deadline_s = time.monotonic() + timeout_s
        self._count = 0

    def timeout_s(self) -> float:
        """How long another try, which is counted, may take."""
        self._count += 1
        return max(self._left_s, 1e-3)

    def success(self) -> None:
        """The last one went well."""
        self._retries.success()

    def delay_s(self, error: OVPError) -> float:
        """How long to wait before another one.

        Args:
            error: What the last one ended with.

        Raises:
            OVPError: `error`, if there is to be none.
        """
        wait_s = self._retries.delay_s(error, self._count, self._left_s)
        if wait_s is None:
            raise error
        return wait_s

    @property
    def _left_s(self) -> float:
        return self._deadline_s - time.monotonic()


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
        if not _is_worth_it(error):
            return None
        wait_s = _wait_s(error, self._tries)
        return wait_s if now + wait_s < self._failing_since_s + self._patience_s else None


def _is_worth_it(error: OVPError) -> bool:
    """Whether it may go better; a server that is out of room must say when."""
    return isinstance(error, Unavailable) or (
        isinstance(error, ResourceExhausted) and error.retry_after_ms > 0
    )


def _wait_s(error: OVPError, tries: int) -> float:
    """How long to wait after so many: not all at the same moment, and never less than the server says."""
    said_s = error.retry_after_ms / 1000
    return (said_s or min(_LONGEST_S, _FIRST_S * 2 ** (tries - 1))) * random.uniform(1.0, 1.25)
