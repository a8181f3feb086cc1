"""What every call goes through: who calls, may they, which status tells what went wrong, what is noted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from ovperception.errors import InvalidInput, OVPError
from ovperception.v1.results_pb2 import ResultInfo
from ovperception.wire_errors import status_of
from serving.presence import CallCancelled
from serving.request_size import set_request_bytes
from serving.security import Guard
from serving.telemetry import CallRecord, Observer, infos, server_timing

__all__ = ["CallInterceptor"]

# A balancer asks for health without a token.
_OPEN_TO_ALL = "/grpc.health.v1.Health/"
_TRACE_KEYS = frozenset({"traceparent", "tracestate"})
_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    _Interceptor = grpc.ServerInterceptor[Any, Any]  # generic in its type stubs alone
else:
    _Interceptor = grpc.ServerInterceptor


class CallInterceptor(_Interceptor):
    """Admits callers, and answers with a status what a method raises.

    An `OVPError` is told in full, anything else without its trace.

    Args:
        guard: Knows who may call.
        observers: Are told of every call.
    """

    def __init__(self, guard: Guard, observers: Sequence[Observer] = ()) -> None:
        self._guard = guard
        self._observers = tuple(observers)
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    # `Any`: requests and replies of whatever method comes through.
    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap a method, once; this runs on the thread that takes up calls, and must be quick."""
        method = handler_call_details.method
        wrapped = self._handlers.get(method)
        if wrapped is not None:
            return wrapped
        handler = continuation(handler_call_details)
        if handler is None or method.startswith(_OPEN_TO_ALL):
            return handler
        return self._handlers.setdefault(method, self._wrap(method, handler))

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        coding = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary is not None:
            # Parsed by us: what is no message is then the caller's mistake, and read from known callers only.
            # Written by us: its size is then known without writing it twice.
            return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary, *coding))
        if handler.unary_stream is not None:
            behaviour = handler.unary_stream
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, behaviour, None, coding[1]), coding[0]
            )
        if handler.stream_stream is not None:
            behaviour = handler.stream_stream
            return grpc.stream_stream_rpc_method_handler(self._stream(method, behaviour, *coding))
        raise AssertionError(f"{method} takes a stream and gives one reply, which no method of ours does")

    def _unary(
        self,
        method: str,
        behaviour: Callable[[Any, Any], Any],
        parse: Callable[[bytes], Any] | None,
        write: Callable[[Any], bytes] | None,
    ) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def answer(data: bytes, context: grpc.ServicerContext) -> bytes:
            started = time.monotonic()
            record = self._record(method, context)
            try:
                record.client = self._guard.admit(context.invocation_metadata(), context).name
                set_request_bytes(len(data))
                request = _parse(data, parse)
                record.request_id = _identify(request)
                reply = behaviour(request, context)
                written: bytes = reply if write is None else write(reply)
            except Exception as error:
                self._end(record, started, error)
                _answer_error(context, error, record)
            record.replies = infos(reply)
            if record.replies:
                # For proxies and load tools, which need not parse replies.
                context.set_trailing_metadata(_timing(started, record.replies))
            if self._observers:
                record.request_bytes, record.reply_bytes = len(data), len(written)
                self._end(record, started)
            return written

        return answer

    def _stream(
        self,
        method: str,
        behaviour: Callable[[Any, Any], Iterator[Any]],
        parse: Callable[[bytes], Any] | None,
        write: Callable[[Any], bytes] | None,
    ) -> Callable[[Any, Any], Iterator[Any]]:
        """A method with a stream of replies; `parse` reads a stream of requests, None means one request."""

        def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            started = time.monotonic()
            record = self._record(method, context)
            record.request_id = _new_id()
            try:
                record.client = self._guard.admit(context.invocation_metadata(), context).name
                for reply in behaviour(request if parse is None else _parsed(request, parse), context):
                    written = reply if write is None else write(reply)
                    self._note_message(record, reply, len(written))
                    yield written
            except GeneratorExit:  # gRPC drops the generator of a caller who left
                record.code = "CANCELLED"
                self._end(record, started)
                raise
            except Exception as error:
                self._end(record, started, error)
                _answer_error(context, error, record)
            context.set_trailing_metadata(_timing(started))  # each reply tells its own
            self._end(record, started)

        return answer

    def _record(self, method: str, context: grpc.ServicerContext) -> CallRecord:
        record = CallRecord(method=method, started_ns=time.time_ns())
        if self._observers:
            pairs = context.invocation_metadata()
            record.trace = {key: str(value) for key, value in pairs if key in _TRACE_KEYS}
        return record

    def _note_message(self, call: CallRecord, reply: Any, nbytes: int) -> None:
        replies = infos(reply) if self._observers else ()
        if not replies:
            return
        duration_ms = replies[0].timing.total_ms
        message = CallRecord(
            method=call.method,
            trace=call.trace,
            started_ns=time.time_ns() - int(1e6 * duration_ms),
            request_id=call.request_id,
            client=call.client,
            duration_ms=duration_ms,
            reply_bytes=nbytes,
            replies=replies,
            is_message=True,
        )
        self._tell(message)

    def _end(self, record: CallRecord, started: float, error: Exception | None = None) -> None:
        record.duration_ms = 1e3 * (time.monotonic() - started)
        if isinstance(error, CallCancelled):
            record.code = "CANCELLED"
        elif isinstance(error, OVPError):
            record.code, record.reason, record.field = error.grpc_status, error.reason, error.field
        elif error is not None:
            record.code, record.reason = "INTERNAL", type(error).__name__
        self._tell(record)

    def _tell(self, record: CallRecord) -> None:
        for observer in self._observers:
            try:
                observer.observe(record)
            except Exception:  # a call does not fail because it could not be counted
                _log.exception("%s failed", type(observer).__name__)


def _parse(data: bytes, parse: Callable[[bytes], Any] | None) -> Any:
    try:
        return data if parse is None else parse(data)
    except DecodeError as error:
        raise InvalidInput("The request is no message of this method", got=error) from None


def _parsed(stream: Iterator[bytes], parse: Callable[[bytes], Any]) -> Iterator[Any]:
    """The messages of a stream; `request_bytes` tells the size of the last to the thread that reads them."""
    for data in stream:
        set_request_bytes(len(data))
        yield _parse(data, parse)


def _identify(request: Any) -> str:
    """The id of a request, which gets one if it brought none; empty if it has no place for one."""
    if not hasattr(request, "request_id"):
        return ""
    said: str = request.request_id
    if not said:
        said = request.request_id = _new_id()
    return said


def _new_id() -> str:
    return os.urandom(16).hex()


def _answer_error(context: grpc.ServicerContext, error: Exception, record: CallRecord) -> NoReturn:
    if isinstance(error, CallCancelled):
        context.abort(grpc.StatusCode.CANCELLED, "the caller left")
    if not isinstance(error, OVPError):
        _log.error("%s %s failed", record.method, record.request_id, exc_info=error)
        error = OVPError("The server failed on this request; its log says why")
    status = rpc_status.to_status(status_of(error, record.request_id))
    spent = ("server-timing", server_timing((), record.duration_ms))
    context.set_trailing_metadata((*status.trailing_metadata, spent))
    context.abort(status.code, status.details)


def _timing(started: float, replies: Sequence[ResultInfo] = ()) -> tuple[tuple[str, str]]:
    """Where a call's time went, as metadata."""
    return (("server-timing", server_timing(replies, 1e3 * (time.monotonic() - started))),)
