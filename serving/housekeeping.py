"""What a server does by itself now and then, when nobody calls that it could be done along with."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

__all__ = ["Housekeeper"]

_EVERY_S = 5.0
_log = logging.getLogger(__name__)


class Housekeeper:
    """A thread that does some chores again and again.

    Args:
        chores: What to do; one that fails is logged, and does not keep the others from being done.
        every_s: How often.
    """

    def __init__(self, chores: Sequence[Callable[[], object]], *, every_s: float = _EVERY_S) -> None:
        self._chores = tuple(chores)
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ovperception-housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            for chore in self._chores:
                try:
                    chore()
                except Exception:
                    _log.exception("a chore failed")
