"""How many bytes the request of a call has, as they came: to ask the message would write it out anew."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["request_bytes", "set_request_bytes"]

_bytes: ContextVar[int] = ContextVar("request_bytes", default=0)


def request_bytes() -> int:
    """Of the call that this thread works for; gRPC runs each call in a context of its own."""
    return _bytes.get()


def set_request_bytes(count: int) -> None:
    """Remember how many this call's request has."""
    _bytes.set(count)
