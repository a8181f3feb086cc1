"""One frame of a stream, as the engine sees it: a call of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import grpc

__all__ = ["FrameContext"]


class FrameContext:
    """What the engine asks of a call's context, for one frame: its deadline, and callbacks that end with it.

    Those of the stream's own context would be kept, with all they hold, until the stream ends.
    """

    def __init__(self, stream: grpc.ServicerContext, left_s: float | None) -> None:
        self._stream = stream
        self._left_s = left_s
        self._callbacks: list[Callable[[], None]] = []

    def time_remaining(self) -> float | None:
        """The frame's time, or the stream's if that is shorter."""
        left = cast("float | None", self._stream.time_remaining())
        return min((s for s in (left, self._left_s) if s is not None), default=None)

    def is_active(self) -> bool:
        """Whether somebody waits for the frame."""
        return self._stream.is_active()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called if the stream ends before the frame does."""
        self._callbacks.append(callback)
        return True

    def leave(self) -> None:
        """The stream has ended."""
        for callback in self._callbacks:
            callback()

    def peer(self) -> str:
        """Who calls."""
        return self._stream.peer()

    def invocation_metadata(self) -> object:
        """What came with the call."""
        return self._stream.invocation_metadata()
