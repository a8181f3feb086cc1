"""Memory that a burst has left with the allocator, given back to the machine when things are quiet again.

glibc keeps what was freed between what is still in use, in an arena for every few threads. It is no leak, a
second burst uses it again; but a server that was overloaded once would hold on to twice its memory for ever.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

__all__ = ["QuietTrimmer", "allocator_trim"]


class QuietTrimmer:
    """Trims when work was done and is over.

    Args:
        done: How much was done so far.
        quiet: Whether nothing is in work.
        trim: Gives memory back; None where the allocator has no such thing, and nothing happens.
    """

    def __init__(
        self, done: Callable[[], int], quiet: Callable[[], bool], *, trim: Callable[[], object] | None
    ) -> None:
        self._done, self._quiet, self._trim = done, quiet, trim
        self._trimmed_at = 0

    def look(self) -> None:
        """Trim if work was done since the last time, and is over."""
        done = self._done()
        if self._trim is not None and done != self._trimmed_at and self._quiet():
            self._trimmed_at = done
            self._trim()


def allocator_trim() -> Callable[[], object] | None:
    """What gives memory back, ``malloc_trim(0)``; None where there is another C library."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(0)
