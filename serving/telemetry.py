"""What is known of a call when it has ended, for metrics, logs and traces; never pixels, never words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Protocol

from ovperception.v1 import results_pb2
from ovperception.v1.perceive_pb2 import BatchPerceiveResponse, StreamPerceiveResponse

__all__ = ["STAGES", "CallRecord", "Observer", "infos", "server_timing", "stage_times"]

# In the order in which a call goes through them: name -> field of `Timing`.
STAGES: Mapping[str, str] = {
    "decode": "decode_ms",
    "queue": "queue_ms",
    "preprocess": "preprocess_ms",
    "trunk": "trunk_ms",
    "head": "head_ms",
    "classify": "classify_ms",
    "postprocess": "postprocess_ms",
    "encode": "encode_ms",
}

stage_times: Callable[[results_pb2.Timing], tuple[float, ...]] = attrgetter(*STAGES.values())
"""Milliseconds of each of `STAGES`."""


@dataclass(slots=True, kw_only=True)
class CallRecord:
    """One call, or one reply of a stream.

    Attributes:
        method: Full name, such as ``/ovperception.v1.PerceptionService/DetectObjects``.
        trace: The caller's trace context (W3C), as it came.
        started_ns: When it began, on the wall clock.
        request_id: The caller's or ours.
        client: Name of the caller, if callers have names.
        code: gRPC status.
        reason: Why it failed, such as ``RESOURCE_EXHAUSTED``; empty if it did not.
        field: The field that was wrong; never what it said.
        duration_ms: From its beginning to its answer.
        request_bytes: Size of the request.
        reply_bytes: Size of the reply.
        replies: What the reply says about each of its results.
        is_message: Whether it is one reply of a stream rather than a whole call.
    """

    method: str
    trace: Mapping[str, str] = field(default_factory=dict)
    started_ns: int = 0
    request_id: str = ""
    client: str = ""
    code: str = "OK"
    reason: str = ""
    field: str = ""
    duration_ms: float = 0.0
    request_bytes: int = 0
    reply_bytes: int = 0
    replies: tuple[results_pb2.ResultInfo, ...] = ()
    is_message: bool = False


class Observer(Protocol):
    """Is told of every call; it must be quick, and is called from many threads."""

    def observe(self, record: CallRecord) -> None:
        """Take note of a call that has ended."""
        ...


def infos(reply: Any) -> tuple[results_pb2.ResultInfo, ...]:
    """What a reply of whatever method says about its results."""
    info = getattr(reply, "info", None)
    if isinstance(info, results_pb2.ResultInfo):
        return (info,)
    if isinstance(reply, BatchPerceiveResponse):
        return tuple(item.result.info for item in reply.items if item.HasField("result"))
    if isinstance(reply, StreamPerceiveResponse) and reply.HasField("result"):
        return (reply.result.info,)
    return ()


def server_timing(replies: Sequence[results_pb2.ResultInfo], duration_ms: float) -> str:
    """Where a call's time went, as W3C's ``server-timing`` spells it; of several results, their sums."""
    sums = map(sum, zip(*[stage_times(info.timing) for info in replies], strict=True))
    parts = [f"{stage};dur={spent_ms:.3f}" for stage, spent_ms in zip(STAGES, sums, strict=False) if spent_ms]
    parts.append(f"total;dur={duration_ms:.3f}")
    return ", ".join(parts)
