"""Numbers for Prometheus, on an HTTP port of their own.

What calls tell is counted as they end; what a server holds is looked up when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import ovperception
from ovperception.errors import Unavailable
from serving.gauges import Gauges
from serving.telemetry import STAGES, CallRecord

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from ovperception.v1 import results_pb2

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# Of the stages, by the field of `Timing`; of images, passes and slots.
_ModelSeries = tuple[tuple[tuple[str, Histogram], ...], Counter, Counter, Counter]
_SHED = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})


class Metrics:
    """Counts calls.

    Args:
        gauges: Tells what the server holds now.
        max_batch: Images that one pass has room for.
    """

    def __init__(self, gauges: Callable[[], Gauges] = dict, *, max_batch: int = 1) -> None:
        self.registry = CollectorRegistry()
        self._max_batch = max_batch
        self._server: tuple[object, object] | None = None
        self._method_series: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._model_series: dict[str, _ModelSeries] = {}
        self._counters()
        self._bytes_in, self._bytes_out = self._bytes.labels("in"), self._bytes.labels("out")
        self.registry.register(_Held(gauges))
        ProcessCollector(registry=self.registry)

    def _counters(self) -> None:
        registry = self.registry
        self._calls = Counter("ovp_requests", "Calls that have ended.", ["method", "code"], registry=registry)
        self._seconds = Histogram(
            "ovp_request_seconds",
            "From a call's beginning to its answer.",
            ["method"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._stages = Histogram(
            "ovp_stage_seconds",
            "Time in one stage, for each image.",
            ["model", "stage"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._shed = Counter(
            "ovp_shed", "Calls that ended without an answer, by why.", ["reason"], registry=registry
        )
        self._replies = Counter("ovp_stream_replies", "Replies of streams.", ["method"], registry=registry)
        self._images = Counter("ovp_encoded_images", "Images encoded.", ["model"], registry=registry)
        self._passes = Counter("ovp_passes", "Passes through a backbone.", ["model"], registry=registry)
        self._slots = Counter(
            "ovp_pass_slots",
            "Images these passes had room for; images over slots is the batch fill.",
            ["model"],
            registry=registry,
        )
        self._bytes = Counter("ovp_bytes", "Bytes of requests and replies.", ["direction"], registry=registry)

    def observe(self, record: CallRecord) -> None:
        """Count a call."""
        method = record.method.rpartition("/")[2]
        if record.is_message:
            self._replies.labels(method).inc()
        else:
            calls, seconds = self._of_method(method, record.code)
            calls.inc()
            seconds.observe(record.duration_ms / 1e3)
            if record.code in _SHED:
                self._shed.labels(record.field or record.reason or record.code).inc()
        self._bytes_in.inc(record.request_bytes)
        self._bytes_out.inc(record.reply_bytes)
        for info in record.replies:
            self._observe_reply(info.model.name, info.timing)

    def _observe_reply(self, model: str, timing: results_pb2.Timing) -> None:
        stages, images, passes, slots = self._of_model(model)
        for name, seconds in stages:
            seconds.observe(getattr(timing, name) / 1e3)
        if timing.batch_size:
            # Each image of a pass tells its size, so that its share of the pass adds up to one.
            share = 1 / timing.batch_size
            images.inc()
            passes.inc(share)
            slots.inc(self._max_batch * share)

    # To find the series of some labels takes longer than to count in it, and each reply counts in a dozen.

    def _of_method(self, method: str, code: str) -> tuple[Counter, Histogram]:
        found = self._method_series.get((method, code))
        if found is None:
            found = (self._calls.labels(method, code), self._seconds.labels(method))
            self._method_series[method, code] = found
        return found

    def _of_model(self, model: str) -> _ModelSeries:
        found = self._model_series.get(model)
        if found is None:
            stages = tuple((name, self._stages.labels(model, stage)) for stage, name in STAGES.items())
            rest = (self._images.labels(model), self._passes.labels(model), self._slots.labels(model))
            found = self._model_series[model] = (stages, *rest)
        return found

    def start(self, host: str, port: int) -> int:
        """Answer Prometheus; the port.

        Raises:
            Unavailable: The port is in use.
        """
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise Unavailable(
                f"Metrics cannot be served on {host}:{port}",
                got=error.strerror,
                mend="Take another metrics_port",
            ) from error
        self._server = (server, thread)
        return int(server.server_port)

    def stop(self) -> None:
        """Free the port."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()  # type: ignore[attr-defined] # a socketserver, which its library leaves untyped
            server.server_close()  # type: ignore[attr-defined]
            thread.join()  # type: ignore[attr-defined]
            self._server = None


class _Held(Collector):
    """What the server holds when it is asked."""

    def __init__(self, gauges: Callable[[], Gauges]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for (name, labels), value in self._gauges().items():
            if name not in families:
                help_text = _HELP.get(name, name.replace("_", " "))
                families[name] = GaugeMetricFamily(
                    f"ovp_{name}", help_text, labels=[key for key, _ in labels]
                )
            families[name].add_metric([text for _, text in labels], value)
        version = GaugeMetricFamily("ovp_server_info", "Version of the server.", labels=["version"])
        version.add_metric([ovperception.__version__], 1)
        yield from (version, *families.values())


_HELP = {
    "in_work": "Requests, bytes and pixels in work or waiting.",
    "in_work_limit": "How many of them may be.",
    "refused": "Calls refused at the door since the start, by the limit they met.",
    "queue_depth": "What waits for the model's thread.",
    "worker_done": "What the model's thread has done since the start.",
    "kept_scenes": "Encoded images kept for later questions.",
    "kept_scene_bytes": "Bytes of them.",
    "text_cache_texts": "Texts looked up since the start, by where they were found: memory, disk, missing.",
    "device_memory_bytes": "Memory of a CUDA device that torch has taken.",
}
