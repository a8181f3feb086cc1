"""The gRPC server: its life from warm-up to drain.

Synchronous, with a pool of threads, rather than `grpc.aio`. Measured side by side at concurrency 1 and 8 with
messages of 1 KB to 2.7 MB, neither wins repeatedly below 100 KB, and above that the synchronous server is the
faster one. A thread reads a request only once it has the call, so that what no thread has picked up yet waits
in HTTP/2's window and not in our memory; and decoding, RLE and PNG need no executor to keep them off a loop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ovperception.errors import Unavailable
from ovperception.v1 import model_service_pb2, perception_service_pb2
from ovperception.v1.model_service_pb2_grpc import add_ModelServiceServicer_to_server
from ovperception.v1.perception_service_pb2_grpc import add_PerceptionServiceServicer_to_server
from serving.config import ServerConfig
from serving.engine import Engine
from serving.interceptor import ErrorInterceptor
from serving.models import ModelSet, ServedModel
from serving.service import ModelService, PerceptionService

__all__ = ["Server"]

SERVICES = (
    perception_service_pb2.DESCRIPTOR.services_by_name["PerceptionService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
)
# Threads beyond the admitted calls: they refuse what is too much, and answer health checks meanwhile.
_SPARE_THREADS = 8
_LAST_REPLIES_S = 0.5
_log = logging.getLogger(__name__)


class Server:
    """Models behind a port.

        with Server([ovperception.load("tiny")], ServerConfig(port=0)) as server:
            client = Client(server.address)

    Args:
        models: What to serve; the first is the default.
        config: Settings.
    """

    def __init__(self, models: Sequence[ServedModel], config: ServerConfig | None = None) -> None:
        self._config = config or ServerConfig()
        self._engine = Engine(ModelSet(models), self._config)
        self._health = health.HealthServicer()
        self._pool = ThreadPoolExecutor(
            max_workers=self._config.max_requests + _SPARE_THREADS, thread_name_prefix="ovperception-call"
        )
        self._server = self._build()
        self._stopping = threading.Lock()
        self._stopped = False
        self.port = 0

    @property
    def address(self) -> str:
        """``host:port`` for a client; the port is 0 until the server has started."""
        host = self._config.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def start(self) -> int:
        """Bind, warm up, serve.

        Returns:
            The port.

        Raises:
            Unavailable: The port is in use, or the address is not one of this machine.
        """
        self._bind()
        self._set_health(serving=False)  # until the models are warm
        self._server.start()
        try:
            self._engine.warm_up()
        except BaseException:
            self.stop(0)
            raise
        self._set_health(serving=True)
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
        self._engine.admission.close()
        self._engine.admission.wait_until_idle(grace)
        self._server.stop(min(grace, _LAST_REPLIES_S)).wait()
        self._engine.close()
        self._pool.shutdown()
        _log.info("stopped after %.1f s", time.monotonic() - started)

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
        limit = self._config.max_message_bytes
        server = grpc.server(
            self._pool,
            interceptors=[ErrorInterceptor()],
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", limit),
                # Or a second server would share the port, and each would get some of the calls.
                ("grpc.so_reuseport", 0),
            ],
        )
        add_PerceptionServiceServicer_to_server(PerceptionService(self._engine), server)
        add_ModelServiceServicer_to_server(ModelService(self._engine), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        return server

    def _bind(self) -> None:
        wanted = f"{self._config.host}:{self._config.port}"
        if ":" in self._config.host:
            wanted = f"[{self._config.host}]:{self._config.port}"
        try:
            self.port = self._server.add_insecure_port(wanted)
        except RuntimeError as error:
            self._engine.close()
            raise Unavailable(
                f"The server cannot listen on {wanted}",
                got=error,
                mend="Stop what uses the port, take another one, or --port 0 for a free one",
            ) from error

    def _set_health(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.ServingStatus
        for name in ("", *SERVICES):
            self._health.set(name, status.SERVING if serving else status.NOT_SERVING)
