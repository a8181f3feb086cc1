"""The gRPC server: its life from warm-up to drain.

Synchronous, with a pool of threads, rather than `grpc.aio`. Measured side by side with messages of 100 KB and
batches as ours, a call of a bare `grpc.aio` server costs as much CPU or a tenth to a fifth more; with larger
messages the synchronous server is the faster one. A thread reads a request only once it has the call, so that
what no thread has picked up yet waits in HTTP/2's window and not in our memory; and decoding, RLE and PNG
need no executor to keep them off a loop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import ovperception
from ovperception.errors import Unavailable
from serving.call_threads import CallThreads
from serving.certificate_scopes import CertificateScopes
from serving.config import ServerConfig
from serving.engine import Engine
from serving.gauges import Gauges, read_gauges
from serving.housekeeping import Housekeeper
from serving.interceptor import CallInterceptor
from serving.memory import QuietTrimmer, allocator_trim
from serving.metrics import Metrics
from serving.model_admin import ModelLoader
from serving.models import ModelSet, ServedModel
from serving.ports import port_in_use
from serving.reflection import add_reflection
from serving.security import Guard, Scope
from serving.services import ADMIN_SERVICES, PUBLIC_SERVICES, add_admin_services, add_public_services
from serving.telemetry import Observer
from serving.tls import check_tls, server_credentials
from serving.tokens import Tokens
from serving.tracing import Tracing

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Server"]

# Threads beyond the admitted calls: they refuse what is too much, and answer health checks meanwhile.
_SPARE_THREADS = 8
_ADMIN_THREADS = 4
_LAST_REPLIES_S = 0.5
_log = logging.getLogger(__name__)


class Server:
    """Models behind a port.

        with Server([ovperception.load("tiny")], ServerConfig(port=0)) as server:
            client = Client(server.address)

    Args:
        models: What to serve; the first is the default.
        config: Settings.
        load: Makes a model of a name, for the admin port; None takes it from the catalogue, on the CPU.
        observers: Are told of every call, beside metrics and traces.
        on_fatal: Called, from some thread, when the device is lost: the server then refuses all calls, and
            is best ended.

    Raises:
        InvalidParameter, MissingFile: A certificate or the tokens cannot be used.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        config: ServerConfig | None = None,
        *,
        load: ModelLoader | None = None,
        observers: Sequence[Observer] = (),
        on_fatal: Callable[[Exception], None] | None = None,
    ) -> None:
        self._config = config or ServerConfig()
        self._tokens = Tokens(self._config.tokens_file) if self._config.tokens_file else None
        authorities = self._config.tls_client_ca
        self._certificates = CertificateScopes(self._config.certificates_file) if authorities else None
        check_tls(self._config)
        self._engine = Engine(ModelSet(models), self._config, on_fatal=self.fail)
        self._metrics = Metrics(self._gauges, max_batch=self._config.max_batch)
        self._tracing = Tracing(self._config.tracing_endpoint) if self._config.tracing_endpoint else None
        self._observers = [*observers, self._metrics, *([self._tracing] if self._tracing else [])]
        self._on_fatal = on_fatal
        self._health = health.HealthServicer()
        most = self._config.max_requests + self._config.max_live_streams + _SPARE_THREADS
        self._pool = CallThreads(most, "ovperception-call")
        self._server = self._build()
        self._admin_pool = CallThreads(_ADMIN_THREADS, "ovperception-admin")
        self._admin = (
            self._build_admin(load or ovperception.load) if self._config.admin_port is not None else None
        )
        trimmer = QuietTrimmer(
            lambda: self._engine.worker.counters.images,
            lambda: not self._engine.admission.used["requests"],
            trim=allocator_trim(),
        )
        self._housekeeper = Housekeeper([self._engine.drop_expired, trimmer.look])
        self._stopping = threading.Lock()
        self._stopped = False
        self.port = self.admin_port = self.metrics_port = 0

    @property
    def address(self) -> str:
        """``host:port`` for a client; the port is 0 until the server has started."""
        return _address(self._config.host, self.port)

    @property
    def engine(self) -> Engine:
        """What the calls share."""
        return self._engine

    def start(self) -> int:
        """Bind, warm up, serve.

        Returns:
            The port.

        Raises:
            Unavailable: The port is in use, or the address is not one of this machine.
        """
        try:
            self.port = self._bind(self._server, self._config.host, self._config.port)
            if self._admin is not None:
                wanted = self._config.admin_port or 0
                self.admin_port = self._bind(self._admin, self._config.admin_host, wanted)
            if self._config.metrics_port is not None:
                self.metrics_port = self._metrics.start(self._config.metrics_host, self._config.metrics_port)
        except Unavailable:
            self._engine.close()
            raise
        self._set_health(serving=False)  # until the models are warm
        self._server.start()
        try:
            self._engine.warm_up()
        except BaseException:
            self.stop(0)
            raise
        self._set_health(serving=True)
        self._housekeeper.start()
        if self._admin is not None:
            self._admin.start()  # not before: one model at a time is warmed up
        _log.info("serving on %s", self.address)
        return self.port

    def stop(self, grace: float = 5.0) -> None:
        """Refuse new calls, let those in work end within `grace` seconds, then end."""
        with self._stopping:
            if self._stopped:
                return
            self._stopped = True
        started = time.monotonic()
        self._health.enter_graceful_shutdown()
        # gRPC's own grace leaves calls that come in meanwhile hanging, so it begins when ours has ended.
        self._engine.drain()
        self._engine.admission.wait_until_idle(grace)
        for server in (self._admin, self._server):
            if server is not None:
                server.stop(min(grace, _LAST_REPLIES_S)).wait()
        self._housekeeper.stop()
        self._engine.close()
        self._pool.shutdown()
        self._admin_pool.shutdown()
        self._metrics.stop()
        if self._tracing is not None:
            self._tracing.close()
        _log.info("stopped after %.1f s", time.monotonic() - started)

    def fail(self, error: Exception) -> None:
        """Refuse every call from now on: the device is lost, and answers would be wrong."""
        self._health.enter_graceful_shutdown()
        self._engine.drain()
        if self._on_fatal is not None:
            self._on_fatal(error)

    def reload(self) -> None:
        """Read the tokens and the scopes of certificates anew, as is done a moment after they change."""
        if self._tokens is not None:
            self._tokens.reload()
        if self._certificates is not None:
            self._certificates.reload()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the server has stopped."""
        self._server.wait_for_termination(timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _build(self) -> grpc.Server:
        server = self._make("infer", self._pool)
        add_public_services(self._engine, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        add_reflection((*PUBLIC_SERVICES, health.SERVICE_NAME), server)
        return server

    def _build_admin(self, load: ModelLoader) -> grpc.Server:
        server = self._make("admin", self._admin_pool)
        add_admin_services(self._engine, server, load, self._report_model)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        add_reflection((*ADMIN_SERVICES, health.SERVICE_NAME), server)
        return server

    def _make(self, scope: Scope, pool: CallThreads) -> grpc.Server:
        """A server without services, whose callers need `scope`."""
        guard = Guard(scope, self._tokens, certificates=self._certificates)
        # Its type stub wants the pool that it gets by default.
        threads = cast("ThreadPoolExecutor", pool)
        interceptor = CallInterceptor(guard, self._observers)
        return grpc.server(threads, interceptors=[interceptor], options=_options(self._config))

    def _bind(self, server: grpc.Server, host: str, port: int) -> int:
        wanted = _address(host, port)
        try:
            credentials = server_credentials(self._config)  # each port its own: it hands its files out once
            if credentials is not None:
                return server.add_secure_port(wanted, credentials)
            return server.add_insecure_port(wanted)
        except RuntimeError as error:
            raise port_in_use(wanted, error) from error

    def _gauges(self) -> Gauges:
        """What the server holds now, for its metrics."""
        return read_gauges(self._engine)

    def _set_health(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.ServingStatus
        for name in ("", *PUBLIC_SERVICES):
            self._health.set(name, status.SERVING if serving else status.NOT_SERVING)
        for model in self._engine.models:
            self._report_model(model.name, serving)

    def _report_model(self, name: str, serving: bool) -> None:
        """Tell by health, under ``models/NAME``, whether a model answers."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        self._health.set(f"models/{name}", status.SERVING if serving else status.NOT_SERVING)


def _address(host: str, port: int) -> str:
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    silent_ms = int(1e3 * config.keepalive_s)
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        ("grpc.max_concurrent_streams", config.max_calls_per_connection),
        ("grpc.keepalive_time_ms", silent_ms),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client that asks more often than this is sent away, as gRPC has it by default at 5 minutes.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        # Or a second server would share the port, and each would get some of the calls.
        ("grpc.so_reuseport", 0),
    ]
