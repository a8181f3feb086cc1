"""Traces by OpenTelemetry: a span for each call, and within it one for each stage.

Spans are written when a call has ended, from the times its reply tells, so that a stage costs nothing to
trace and a server without traces pays nothing at all. The stages of a call follow each other in the order of
`serving.telemetry.STAGES`; of several images in one call each has spans of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovperception.errors import MissingDependency
from serving.telemetry import STAGES, CallRecord

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from ovperception.v1 import results_pb2

__all__ = ["Tracing"]


class Tracing:
    """Writes the spans of calls.

    Args:
        endpoint: OTLP collector over gRPC, such as ``http://localhost:4317``.
        exporter: Where spans go instead.

    Raises:
        MissingDependency: OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str, *, exporter: SpanExporter | None = None) -> None:
        try:
            self._provider = _provider(endpoint, exporter)
        except ImportError as error:
            raise MissingDependency(
                "Traces need OpenTelemetry", got=error, mend="pip install 'ovperception[tracing]'"
            ) from error
        self._tracer = self._provider.get_tracer("ovperception.serving")

    def observe(self, record: CallRecord) -> None:
        """Write the spans of one call."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(dict(record.trace))
        service, _, method = record.method.lstrip("/").rpartition("/")
        span = self._tracer.start_span(
            record.method.lstrip("/"), parent, kind=SpanKind.SERVER, start_time=record.started_ns
        )
        if span.is_recording():
            span.set_attributes({"rpc.system": "grpc", "rpc.service": service, "rpc.method": method})
            span.set_attributes({"rpc.grpc.status": record.code, "ovp.request_id": record.request_id})
            if record.client:
                span.set_attribute("enduser.id", record.client)
            if record.code == "INTERNAL":
                span.set_status(Status(StatusCode.ERROR, record.reason))
            context = set_span_in_context(span)
            for info in record.replies:
                self._stages(info, context, record.started_ns)
        span.end(record.started_ns + int(1e6 * record.duration_ms))

    def _stages(self, info: results_pb2.ResultInfo, context: Context, start_ns: int) -> None:
        for stage, name in STAGES.items():
            took_ns = int(1e6 * getattr(info.timing, name))
            if took_ns:
                span = self._tracer.start_span(stage, context, start_time=start_ns)
                span.set_attribute("ovp.model", info.model.name)
                span.set_attribute("ovp.batch_size", info.timing.batch_size)
                span.end(start_ns + took_ns)
                start_ns += took_ns

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _provider(endpoint: str, exporter: SpanExporter | None) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if exporter is None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=endpoint)
    provider = TracerProvider(resource=Resource.create({"service.name": "ovperception"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
