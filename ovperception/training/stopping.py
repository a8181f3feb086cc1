"""A polite request to stop: the step is finished, the state saved, and only then the process ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["RunStopped", "StopRequest"]


class RunStopped(Exception):
    """A run was asked to stop by a signal and has saved its state; it is not finished.

    Attributes:
        step: steps done.
        signal_number: which signal asked.
    """

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped at step {step} by {signal.Signals(signal_number).name}")
        self.step = step
        self.signal_number = signal_number


class StopRequest:
    """Inside the block SIGINT and SIGTERM are only noted; a second SIGINT interrupts at once.

    Signals reach the main thread alone; in another one the block changes nothing.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number
