"""StreamPerceive: frame after frame, as many at once as agreed, and one reply for each, in order.

One thread reads, as many as frames may be in work answer, and gRPC's own writes. What is held is bounded by
`max_in_flight`: a reader who does not read makes frames wait, then be dropped, or, with BLOCK, not be read.

When the server is about to end, so does the stream: frames in work get their replies, then it is UNAVAILABLE,
and the client takes those without a reply to another server, or to this one when it is back.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import cast

import grpc

from ovperception.errors import (
    DeadlineExceeded,
    InvalidParameter,
    OVPError,
    ResourceExhausted,
    Unavailable,
)
from ovperception.v1 import perceive_pb2 as pb
from ovperception.v1.results_pb2 import ClassInfo
from serving.engine import Engine
from serving.frame_context import FrameContext
from serving.jobs import closing
from serving.perceiving import Asked, Perceiver, answers, failure
from serving.presence import CallCancelled
from serving.security import caller

__all__ = ["Streams"]

_DEFAULT_IN_FLIGHT = 4
_MOST_CHANGES = 16
_Policy = pb.OverloadPolicy


class Streams:
    """The open streams of a server.

    Args:
        engine: Answers their frames.
        perceiver: Checks what they ask.
    """

    def __init__(self, engine: Engine, perceiver: Perceiver) -> None:
        self._engine = engine
        self._perceiver = perceiver
        self._room = threading.BoundedSemaphore(engine.config.max_live_streams)

    def serve(
        self, requests: Iterator[pb.StreamPerceiveRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamPerceiveResponse]:
        """One stream, from its configuration to its end.

        Raises:
            OVPError: It is not taken up.
        """
        if not self._room.acquire(blocking=False):
            raise ResourceExhausted(
                "The server has as many streams as it takes",
                expected=f"at most {self._engine.config.max_live_streams} streams at once",
                mend="Try again later",
            )
        try:
            first = next(requests, None)
            if first is None:
                return
            if first.WhichOneof("message") != "config":
                raise InvalidParameter(
                    "A stream begins with its configuration",
                    field="config",
                    got=first.WhichOneof("message") or "nothing",
                )
            stream = _Stream(self._engine, self._perceiver, first.config, context)
            yield from stream.replies(requests)
        finally:
            self._room.release()


@dataclass(slots=True, kw_only=True, eq=False)
class _Entry:
    """A frame or an update on its way; `reply` is set when it has one."""

    sequence: int
    request: pb.StreamPerceiveRequest | None
    asked: Asked | None = None
    arrived_s: float = field(default_factory=time.monotonic)
    reply: pb.StreamPerceiveResponse | None = None


class _Stream:
    """One stream."""

    def __init__(
        self, engine: Engine, perceiver: Perceiver, config: pb.StreamConfig, context: grpc.ServicerContext
    ) -> None:
        self._engine = engine
        self._perceiver = perceiver
        self._context = context
        self._owner = caller().name
        self._model = config.model
        self._vocabulary, self._outputs = config.vocabulary, list(config.outputs)
        self._asked = perceiver.asked(self._model, self._vocabulary, self._outputs, self._owner)
        self._request_id = config.request_id or uuid.uuid4().hex
        self._policy = _policy(config.overload_policy)
        self._most = min(config.max_in_flight or _DEFAULT_IN_FLIGHT, engine.config.max_in_flight)
        timeout_s = config.frame_timeout.seconds + config.frame_timeout.nanos / 1e9
        self._frame_timeout_s = timeout_s if config.HasField("frame_timeout") else None
        if self._frame_timeout_s is not None and self._frame_timeout_s <= 0:
            raise InvalidParameter("A frame gets no time", field="config.frame_timeout", got=timeout_s)
        self._changes: deque[tuple[int, Asked]] = deque()  # meant for frames that have not come yet
        self._last = -1
        self._entries: deque[_Entry] = deque()  # without a reply sent, by age
        self._waiting: deque[_Entry] = deque()  # frames that nobody works on yet
        self._frames: set[FrameContext] = set()  # in work
        self._ended = False  # no more requests
        self._stopped = False  # nobody reads replies any more
        self._broken: Exception | None = None
        self._change = threading.Condition()

    def replies(self, requests: Iterator[pb.StreamPerceiveRequest]) -> Iterator[pb.StreamPerceiveResponse]:
        """The configuration's reply, then those of frames and updates in order."""
        self._context.add_callback(self._stop)
        self._engine.on_drain(self._drain)
        # Each in a context of its own that knows the caller.
        work: list[Callable[[], None]] = [lambda: self._read(requests), *[self._work] * self._most]
        threads = [
            threading.Thread(target=copy_context().run, args=(job,), name="ovperception-stream", daemon=True)
            for job in work
        ]
        for thread in threads:
            thread.start()
        try:
            yield self._accepted(0, self._asked)
            while (reply := self._next()) is not None:
                yield reply
            if self._broken is not None:
                raise self._broken
        finally:
            self._engine.on_drain(self._drain, forget=True)
            self._stop()
            for thread in threads[1:]:  # the first waits for gRPC, which ends it with the call
                thread.join()

    def _next(self) -> pb.StreamPerceiveResponse | None:
        with self._change:
            self._change.wait_for(self._can_go_on)
            if self._stopped or not self._entries:
                return None
            reply = self._entries.popleft().reply
            self._change.notify_all()
        return reply

    def _can_go_on(self) -> bool:
        if self._entries:
            return self._stopped or self._entries[0].reply is not None
        return self._stopped or self._ended

    def _stop(self) -> None:
        with self._change:
            self._stopped = True
            frames = list(self._frames)
            self._change.notify_all()
        for frame in frames:
            frame.leave()

    def _read(self, requests: Iterator[pb.StreamPerceiveRequest]) -> None:
        try:
            for request in requests:
                if not self._take(request):
                    break
        except Exception as error:  # gRPC ends the iterator of a lost call with an exception of no type
            with self._change:
                if isinstance(error, OVPError) and self._broken is None:
                    self._broken = error
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _take(self, request: pb.StreamPerceiveRequest) -> bool:
        """Take up one message; whether to read on."""
        kind = request.WhichOneof("message")
        if kind == "frame":
            self._take_frame(request)
        elif kind == "update":
            self._take_update(request.update)
        else:
            raise InvalidParameter(
                "A stream goes on with frames and updates", field=kind or "message", got=kind or "nothing"
            )
        return not self._stopped and self._broken is None

    def _take_update(self, update: pb.StreamUpdate) -> None:
        entry = _Entry(sequence=update.from_sequence, request=None)
        try:
            if update.from_sequence <= self._last:
                raise InvalidParameter(
                    "The update is meant for a frame that has come already",
                    field="update.from_sequence",
                    expected=f"more than {self._last}",
                    got=update.from_sequence,
                )
            if len(self._changes) >= _MOST_CHANGES:
                raise ResourceExhausted(
                    "Too many updates wait for their frames",
                    field="update",
                    expected=f"at most {_MOST_CHANGES}",
                    mend="Send frames, or fewer updates",
                )
            if self._changes and update.from_sequence < self._changes[-1][0]:
                raise InvalidParameter(
                    "The update comes after one for later frames",
                    field="update.from_sequence",
                    expected=f"at least {self._changes[-1][0]}",
                    got=update.from_sequence,
                )
            vocabulary = update.vocabulary if update.HasField("vocabulary") else self._vocabulary
            outputs = list(update.outputs) or self._outputs
            asked = self._perceiver.asked(self._model, vocabulary, outputs, self._owner)
            self._vocabulary, self._outputs = vocabulary, outputs
            self._changes.append((update.from_sequence, asked))
            entry.reply = self._accepted(update.from_sequence, asked)
        except Exception as error:
            status = failure(error, "", self._request_id)
            entry.reply = pb.StreamPerceiveResponse(sequence=update.from_sequence, error=status)
        with self._change:
            # Without a bound, a caller who sends nothing but updates would fill the memory.
            self._change.wait_for(lambda: self._stopped or len(self._entries) < 2 * self._most)
            if self._broken is not None:
                return
            self._entries.append(entry)
            self._change.notify_all()

    def _take_frame(self, request: pb.StreamPerceiveRequest) -> None:
        sequence = request.frame.sequence
        if sequence <= self._last:
            raise InvalidParameter(
                "A frame is not newer than the one before",
                field="frame.sequence",
                expected=f"more than {self._last}",
                got=sequence,
            )
        self._last = sequence
        while self._changes and self._changes[0][0] <= sequence:
            self._asked = self._changes.popleft()[1]
        entry = _Entry(sequence=sequence, request=request, asked=self._asked)
        with self._change:
            # Dropped frames wait for their reply too: a caller who reads nothing is not read for ever either.
            room = 4 * self._most
            self._change.wait_for(lambda: self._stopped or len(self._entries) < room)
            if self._policy == _Policy.OVERLOAD_POLICY_BLOCK:
                self._change.wait_for(lambda: self._stopped or self._held() < self._most)
            if self._stopped or self._broken is not None:
                return
            self._entries.append(entry)
            # One more than are in work, so that there is a newest one to go on with.
            newest = self._policy == _Policy.OVERLOAD_POLICY_DROP_OLDEST
            if self._held() <= self._most + newest:
                self._waiting.append(entry)
            elif newest and self._waiting:
                self._drop(self._waiting.popleft(), pb.DROP_REASON_NEWER_FRAME)
                self._waiting.append(entry)
            else:
                self._drop(entry, pb.DROP_REASON_NO_ROOM)
            self._change.notify_all()

    def _held(self) -> int:
        """Frames whose picture or answer is in memory."""
        return sum(entry.request is not None or _has_result(entry) for entry in self._entries)

    def _drop(self, entry: _Entry, reason: pb.DropReason) -> None:
        entry.request = None
        dropped = pb.FrameDropped(reason=reason)
        entry.reply = pb.StreamPerceiveResponse(sequence=entry.sequence, dropped=dropped)

    def _work(self) -> None:
        while (entry := self._job()) is not None:
            reply = self._answer(entry)
            with self._change:
                entry.request, entry.reply = None, reply
                self._change.notify_all()

    def _drain(self) -> None:
        """The server is about to end: go on with nothing that is not in work."""
        with self._change:
            self._break_off(self._waiting[0] if self._waiting else None, closing())

    def _break_off(self, first: _Entry | None, error: OVPError) -> None:
        """End with an error instead of a reply to `first` and to all that came after it."""
        self._broken = self._broken or error
        self._ended = True
        self._waiting.clear()
        while first is not None and first in self._entries:
            self._entries.pop()
        self._change.notify_all()

    def _job(self) -> _Entry | None:
        with self._change:
            self._change.wait_for(
                lambda: self._stopped or self._waiting or (self._ended and not self._waiting)
            )
            if self._stopped or not self._waiting:
                return None
            return self._waiting.popleft()

    def _answer(self, entry: _Entry) -> pb.StreamPerceiveResponse:
        request, asked = entry.request, entry.asked
        assert request is not None
        assert asked is not None
        left_s = self._left_s(entry)
        too_late = pb.FrameDropped(reason=pb.DROP_REASON_TOO_LATE)
        if left_s is not None and left_s <= 0:
            return pb.StreamPerceiveResponse(sequence=entry.sequence, dropped=too_late)
        request_id = f"{self._request_id}/{entry.sequence}"
        frame = FrameContext(self._context, left_s)
        with self._change:
            self._frames.add(frame)
        context = cast("grpc.ServicerContext", frame)
        try:
            with self._engine.call(asked.model, request_id, request.ByteSize(), context) as call:
                result = answers(call, asked, request.frame.image)
        except CallCancelled:
            return pb.StreamPerceiveResponse(sequence=entry.sequence)
        except Unavailable as error:
            with self._change:
                self._break_off(entry, error)
            return pb.StreamPerceiveResponse(sequence=entry.sequence)
        except DeadlineExceeded as error:
            if left_s is not None:
                return pb.StreamPerceiveResponse(sequence=entry.sequence, dropped=too_late)
            return self._failed(entry, error, request_id)
        except Exception as error:
            return self._failed(entry, error, request_id)
        finally:
            with self._change:
                self._frames.discard(frame)
        return pb.StreamPerceiveResponse(sequence=entry.sequence, result=result)

    def _failed(self, entry: _Entry, error: Exception, request_id: str) -> pb.StreamPerceiveResponse:
        return pb.StreamPerceiveResponse(sequence=entry.sequence, error=failure(error, "frame", request_id))

    def _left_s(self, entry: _Entry) -> float | None:
        if self._frame_timeout_s is None:
            return None
        return entry.arrived_s + self._frame_timeout_s - time.monotonic()

    def _accepted(self, sequence: int, asked: Asked) -> pb.StreamPerceiveResponse:
        words = asked.words
        accepted = pb.StreamAccepted(
            model=self._engine.models.info(asked.model),
            vocabulary=words.info() if words else None,
            overload_policy=pb.OverloadPolicy.Name(self._policy),
            max_in_flight=self._most,
        )
        for entry in words.vocabulary.classes if words else ():
            accepted.classes.append(ClassInfo(name=entry.name, is_thing=entry.is_thing))
        return pb.StreamPerceiveResponse(sequence=sequence, accepted=accepted)


def _has_result(entry: _Entry) -> bool:
    return entry.reply is not None and entry.reply.WhichOneof("message") == "result"


def _policy(given: int) -> int:
    if given == _Policy.OVERLOAD_POLICY_UNSPECIFIED:
        return _Policy.OVERLOAD_POLICY_DROP_OLDEST
    if given not in _Policy.values():
        raise InvalidParameter(
            "No such policy",
            field="config.overload_policy",
            expected=" or ".join(_Policy.keys()[1:]),
            got=given,
        )
    return given
