"""Numbers for Prometheus, on an HTTP port of their own.

What calls tell is counted as they end; what a server holds is looked up when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import ovperception
from ovperception.errors import Unavailable
from serving.gauges import Gauges
from serving.tallies import Tallies
from serving.telemetry import STAGES, CallRecord, stage_times

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from ovperception.v1 import results_pb2

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IN, _OUT = ("in",), ("out",)
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
        self._tallies = Tallies()
        self._stage_labels: dict[str, list[tuple[str, str]]] = {}  # by model
        self._counters()
        self.registry.register(self._tallies)
        self.registry.register(_Held(gauges))
        ProcessCollector(registry=self.registry)

    def _counters(self) -> None:
        counts, histograms = self._tallies.counts, self._tallies.histograms
        self._calls = counts("ovp_requests", "Calls that have ended.", ["method", "code"])
        self._seconds = histograms(
            "ovp_request_seconds", "From a call's beginning to its answer.", ["method"], _SECONDS
        )
        self._stages = histograms(
            "ovp_stage_seconds", "Time in one stage, for each image.", ["model", "stage"], _SECONDS
        )
        self._shed = counts("ovp_shed", "Calls that ended without an answer, by why.", ["reason"])
        self._replies = counts("ovp_stream_replies", "Replies of streams.", ["method"])
        self._images = counts("ovp_encoded_images", "Images encoded.", ["model"])
        self._passes = counts("ovp_passes", "Passes through a backbone.", ["model"])
        self._slots = counts(
            "ovp_pass_slots",
            "Images these passes had room for; images over slots is the batch fill.",
            ["model"],
        )
        self._bytes = counts("ovp_bytes", "Bytes of requests and replies.", ["direction"])

    def observe(self, record: CallRecord) -> None:
        """Count a call."""
        method = record.method.rpartition("/")[2]
        with self._tallies.lock:
            if record.is_message:
                self._replies.add((method,))
            else:
                self._calls.add((method, record.code))
                self._seconds.add((method,), record.duration_ms / 1e3)
                if record.code in _SHED:
                    self._shed.add((record.field or record.reason or record.code,))
            self._bytes.add(_IN, record.request_bytes)
            self._bytes.add(_OUT, record.reply_bytes)
            for info in record.replies:
                self._observe_reply(info.model.name, info.timing)

    def _observe_reply(self, model: str, timing: results_pb2.Timing) -> None:
        stages = self._stage_labels.get(model)
        if stages is None:
            stages = self._stage_labels[model] = [(model, stage) for stage in STAGES]
        self._stages.add_each(stages, [spent_ms / 1e3 for spent_ms in stage_times(timing)])
        if timing.batch_size:
            # Each image of a pass tells its size, so that its share of the pass adds up to one.
            share, whose = 1 / timing.batch_size, (model,)
            self._images.add(whose)
            self._passes.add(whose, share)
            self._slots.add(whose, self._max_batch * share)

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
