"""Errors as ``google.rpc.Status`` and back, so that a served error is the local one.

The class travels as `ErrorInfo.reason`, its parts as `ErrorInfo.metadata`. For clients in other languages a
wrong field is also a `BadRequest.FieldViolation`, what is not there a `ResourceInfo`, and what is worth a
second try comes with a `RetryInfo`.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from ovperception.errors import NotFound, OVPError

__all__ = ["DOMAIN", "error_of", "status_of"]

DOMAIN = "ovperception.dev"

# gRPC refuses trailers of more than 8 KiB in all, where the text stands several times, once percent-encoded.
_MAX_BYTES = 400
_RETRY_AFTER_MS = 200
_RETRYABLE = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})


def status_of(error: OVPError, request_id: str = "") -> Status:
    """What a server answers with when `error` was raised."""
    code = grpc.StatusCode[error.grpc_status].value[0]
    status = Status(code=code, message=_cut(error.message))
    parts = {"what": error.what, "field": error.field, "expected": error.expected}
    parts |= {"got": error.got, "mend": error.mend, "request_id": request_id}
    metadata = {key: _cut(value) for key, value in parts.items() if value}
    _attach(status, ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if error.field:
        violation = BadRequest.FieldViolation(field=error.field, description=_cut(error.what))
        _attach(status, BadRequest(field_violations=[violation]))
    if isinstance(error, NotFound):
        kind = error.reason.removeprefix("UNKNOWN_").removesuffix("_NOT_FOUND").lower()
        name, what = _cut(error.got), _cut(error.what)
        _attach(status, ResourceInfo(resource_type=kind, resource_name=name, description=what))
    if error.grpc_status in _RETRYABLE:
        delay = Duration()
        delay.FromMilliseconds(error.retry_after_ms or _RETRY_AFTER_MS)
        _attach(status, RetryInfo(retry_delay=delay))
    return status


def error_of(status: Status) -> OVPError | None:
    """The error that a server of ours answered with, or None if the status does not come from one."""
    info, retry = ErrorInfo(), RetryInfo()
    if not any(detail.Unpack(info) and info.domain == DOMAIN for detail in status.details):
        return None
    error = _rebuild(info, status.message)
    if any(detail.Unpack(retry) for detail in status.details):
        error.retry_after_ms = retry.retry_delay.ToMilliseconds()
    return error


def _rebuild(info: ErrorInfo, message: str) -> OVPError:
    parts = info.metadata
    names = ("field", "expected", "mend")
    cls = _classes().get(info.reason, OVPError)
    return cls(
        parts.get("what", message), got=parts.get("got"), **{name: parts.get(name, "") for name in names}
    )


def _classes() -> dict[str, type[OVPError]]:
    return {cls("").reason: cls for cls in _tree(OVPError)}


def _tree(cls: type[OVPError]) -> Iterator[type[OVPError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


def _attach(status: Status, detail: ErrorInfo | BadRequest | ResourceInfo | RetryInfo) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)


def _cut(text: str) -> str:
    data = text.encode(errors="replace")
    return data.decode() if len(data) <= _MAX_BYTES else f"{data[:_MAX_BYTES].decode(errors='ignore')}…"
