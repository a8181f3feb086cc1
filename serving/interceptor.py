"""The one place where errors become gRPC statuses."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from grpc_status import rpc_status

from ovperception.errors import OVPError
from ovperception.wire_errors import status_of
from serving.engine import CallCancelled

__all__ = ["ErrorInterceptor"]

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    _Interceptor = grpc.ServerInterceptor[Any, Any]  # generic in its type stubs alone
else:
    _Interceptor = grpc.ServerInterceptor


class ErrorInterceptor(_Interceptor):
    """Answers with a status what a method raises: an `OVPError` in full, anything else without its trace."""

    # `Any`: requests and replies of whatever method comes through.
    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap a unary method; streams are left alone."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        behaviour, method = handler.unary_unary, handler_call_details.method

        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            request_id = _identify(request)
            try:
                return behaviour(request, context)
            except CallCancelled:
                context.abort(grpc.StatusCode.CANCELLED, "the caller left")
            except OVPError as error:
                _log.info("%s %s: %s", method, request_id, error.message)
                _abort(context, error, request_id)
            except Exception:
                _log.exception("%s %s failed", method, request_id)
                what = "The server failed on this request; its log says why"
                _abort(context, OVPError(what), request_id)

        return grpc.unary_unary_rpc_method_handler(
            guarded, handler.request_deserializer, handler.response_serializer
        )


def _identify(request: Any) -> str:
    """The id of a request, which gets one if it brought none; empty if it has no place for one."""
    if not hasattr(request, "request_id"):
        return ""
    request.request_id = request.request_id or uuid.uuid4().hex
    return str(request.request_id)


def _abort(context: grpc.ServicerContext, error: OVPError, request_id: str) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(status_of(error, request_id)))
    raise AssertionError("abort_with_status raises")
