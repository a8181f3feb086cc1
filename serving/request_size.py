"""How many bytes a request or a frame has, as it came: to ask the message would write it out anew."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["request_bytes", "set_request_bytes"]

_bytes: ContextVar[int] = ContextVar("request_bytes", default=0)


def request_bytes() -> int:
    """Of the call or the frame that this thread took up; gRPC runs each call in a context of its own."""
    return _bytes.get()


def set_request_bytes(count: int) -> None:
    """Remember how many it has."""
    _bytes.set(count)
