"""StreamPerceive: frame after frame, as many at once as agreed, and one reply for each, in order.

When the server is about to end, so does the stream: frames in work get their replies, then it is UNAVAILABLE,
and the client takes those without a reply to another server, or to this one when it is back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
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
from serving.request_size import request_bytes
from serving.security import caller
from serving.stream_backlog import Backlog, Entry
from serving.stream_config import StreamQuestions, stream_terms

__all__ = ["Streams"]


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


class _Stream:
    """One stream: a thread reads, as many as frames may be in work answer, and gRPC's own sends."""

    def __init__(
        self, engine: Engine, perceiver: Perceiver, config: pb.StreamConfig, context: grpc.ServicerContext
    ) -> None:
        self._engine = engine
        self._context = context
        self._questions = StreamQuestions(perceiver, config, caller().name)
        self._terms = stream_terms(config, engine.config.max_in_flight)
        self._backlog = Backlog(policy=self._terms.policy, most=self._terms.most)
        self._last = -1
        self._frames: set[FrameContext] = set()  # in work
        self._lock = threading.Lock()

    def replies(self, requests: Iterator[pb.StreamPerceiveRequest]) -> Iterator[pb.StreamPerceiveResponse]:
        """The configuration's reply, then those of frames and updates in order."""
        accepted = self._accepted(0, self._questions.asked)  # before the reader may change that
        self._context.add_callback(self._stop)
        self._engine.on_drain(self._drain)
        # Each in a context of its own that knows the caller.
        work: list[Callable[[], None]] = [lambda: self._read(requests), *[self._work] * self._terms.most]
        threads = [
            threading.Thread(target=copy_context().run, args=(job,), name="ovperception-stream", daemon=True)
            for job in work
        ]
        for thread in threads:
            thread.start()
        try:
            yield accepted
            while (reply := self._backlog.next_reply()) is not None:
                yield reply
            if self._backlog.broken is not None:
                raise self._backlog.broken
        finally:
            self._engine.on_drain(self._drain, forget=True)
            self._stop()
            for thread in threads[1:]:  # the first waits for gRPC, which ends it with the call
                thread.join()

    def _stop(self) -> None:
        self._backlog.stop()
        with self._lock:
            frames = list(self._frames)
        for frame in frames:
            frame.leave()

    def _drain(self) -> None:
        """The server is about to end: go on with nothing that is not in work."""
        self._backlog.break_off(closing())

    def _read(self, requests: Iterator[pb.StreamPerceiveRequest]) -> None:
        broken = None
        try:
            for request in requests:
                self._take(request)
                if self._backlog.stopped or self._backlog.broken is not None:
                    break
        except Exception as error:  # gRPC ends the iterator of a lost call with an exception of no type
            broken = error if isinstance(error, OVPError) else None
        self._backlog.end(broken)

    def _take(self, request: pb.StreamPerceiveRequest) -> None:
        kind = request.WhichOneof("message")
        if kind == "frame":
            self._take_frame(request)
        elif kind == "update":
            self._take_update(request.update)
        else:
            raise InvalidParameter(
                "A stream goes on with frames and updates", field=kind or "message", got=kind or "nothing"
            )

    def _take_update(self, update: pb.StreamUpdate) -> None:
        entry = Entry(sequence=update.from_sequence, request=None)
        try:
            asked = self._questions.change(update, self._last)
            entry.reply = self._accepted(update.from_sequence, asked)
        except Exception as error:
            status = failure(error, "", self._terms.request_id)
            entry.reply = pb.StreamPerceiveResponse(sequence=update.from_sequence, error=status)
        self._backlog.put_update(entry)

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
        asked = self._questions.of_frame(sequence)
        entry = Entry(sequence=sequence, request=request, nbytes=request_bytes(), asked=asked)
        self._backlog.put_frame(entry)

    def _work(self) -> None:
        while (entry := self._backlog.work()) is not None:
            self._backlog.reply(entry, self._answer(entry))

    def _answer(self, entry: Entry) -> pb.StreamPerceiveResponse:
        left_s = self._left_s(entry)
        too_late = pb.FrameDropped(reason=pb.DROP_REASON_TOO_LATE)
        if left_s is not None and left_s <= 0:
            return pb.StreamPerceiveResponse(sequence=entry.sequence, dropped=too_late)
        request_id = f"{self._terms.request_id}/{entry.sequence}"
        try:
            return pb.StreamPerceiveResponse(
                sequence=entry.sequence, result=self._result(entry, request_id, left_s)
            )
        except CallCancelled:
            return pb.StreamPerceiveResponse(sequence=entry.sequence)
        except Unavailable as error:
            self._backlog.break_off(error, entry)
            return pb.StreamPerceiveResponse(sequence=entry.sequence)
        except DeadlineExceeded as error:
            if left_s is not None:
                return pb.StreamPerceiveResponse(sequence=entry.sequence, dropped=too_late)
            return _failed(entry, error, request_id)
        except Exception as error:
            return _failed(entry, error, request_id)

    def _result(self, entry: Entry, request_id: str, left_s: float | None) -> pb.PerceiveResult:
        request, asked = entry.request, entry.asked
        assert request is not None
        assert asked is not None
        frame = FrameContext(self._context, left_s)
        with self._lock:
            self._frames.add(frame)
        context = cast("grpc.ServicerContext", frame)
        try:
            with self._engine.call(asked.model, request_id, entry.nbytes, context) as call:
                return answers(call, asked, request.frame.image)
        finally:
            with self._lock:
                self._frames.discard(frame)

    def _left_s(self, entry: Entry) -> float | None:
        if self._terms.frame_timeout_s is None:
            return None
        return entry.arrived_s + self._terms.frame_timeout_s - time.monotonic()

    def _accepted(self, sequence: int, asked: Asked) -> pb.StreamPerceiveResponse:
        words = asked.words
        accepted = pb.StreamAccepted(
            model=self._engine.models.info(asked.model),
            vocabulary=words.info() if words else None,
            overload_policy=pb.OverloadPolicy.Name(self._terms.policy),
            max_in_flight=self._terms.most,
        )
        for entry in words.vocabulary.classes if words else ():
            accepted.classes.append(ClassInfo(name=entry.name, is_thing=entry.is_thing))
        return pb.StreamPerceiveResponse(sequence=sequence, accepted=accepted)


def _failed(entry: Entry, error: Exception, request_id: str) -> pb.StreamPerceiveResponse:
    return pb.StreamPerceiveResponse(sequence=entry.sequence, error=failure(error, "frame", request_id))
