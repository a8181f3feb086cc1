"""``ovp serve``: models behind a port, until told to stop."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape

import ovperception
from ovperception.bundle import read_card
from ovperception.catalogue import locate
from ovperception.errors import InvalidParameter, OVPError
from serving import serve_options as options
from serving.certificate_scopes import CertificateScopes
from serving.config import ServeConfig
from serving.logs import AccessLog, set_up_logs
from serving.models import ServedModel
from serving.ports import check_port
from serving.security import warnings_of
from serving.server import Server
from serving.settings import Resolved, resolve
from serving.tls import check_tls
from serving.tokens import Tokens

__all__ = ["serve"]


def serve(
    model: options.Model = None,
    config: options.Config = None,
    check_config: options.CheckConfig = False,
    host: options.Host = None,
    port: options.Port = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    threads: options.Threads = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_client_ca: options.TlsClientCa = None,
    tokens_file: options.TokensFile = None,
    admin_port: options.AdminPort = None,
    metrics_port: options.MetricsPort = None,
    tracing_endpoint: options.TracingEndpoint = None,
    max_classes: options.MaxClasses = None,
    max_pixels: options.MaxPixels = None,
    max_requests: options.MaxRequests = None,
    max_batch: options.MaxBatch = None,
    keep_bytes: options.KeepBytes = None,
    keep_seconds: options.KeepSeconds = None,
    grace: options.Grace = None,
    log_format: options.LogFormat = None,
    verbose: options.Verbose = False,
    more: options.More = None,
) -> None:
    """Serve models over gRPC. SIGTERM or Ctrl-C lets calls in work end; a second one does not.

    Every setting can also stand in a file (--config) or in the environment (OVP_PORT, OVP_MAX_BATCH, ...).
    """
    given = {name: value for name, value in locals().items() if value is not None}
    settings, typed = _settings(given)
    resolved = resolve(settings, file=config, typed=typed)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for warning in warnings_of(resolved.config):
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    if check_config:
        _check(resolved)
    else:
        _run(resolved.config, console)


_SETTINGS = {field.name for field in fields(ServeConfig)}
# Flags with names of their own.
_RENAMED = {
    "model": "models",
    "keep_bytes": "max_kept_bytes",
    "keep_seconds": "kept_ttl_s",
    "grace": "grace_s",
}


def _settings(flags: dict[str, Any]) -> tuple[dict[str, object], dict[str, str]]:
    """The settings that flags stand for, and how each was typed; flags of their own go over ``--set``."""
    settings = _pairs(flags.get("more") or ())
    typed = {name: f"--set {name}" for name in settings}
    for flag, value in flags.items():
        name = _RENAMED.get(flag, flag)
        if name in _SETTINGS and value != []:
            settings[name], typed[name] = value, f"--{flag.replace('_', '-')}"
    if flags.get("verbose"):
        settings["log_level"], typed["log_level"] = "info", "--verbose"
    return settings, typed


def _pairs(texts: list[str] | tuple[str, ...]) -> dict[str, object]:
    pairs: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidParameter(
                "--set takes a name and a value", field="set", expected="NAME=VALUE", got=text
            )
        pairs[name] = value.split(",") if name == "models" else value
    return pairs


def _check(resolved: Resolved) -> None:
    """Print the settings, as a file of them, and where each comes from; fail where serving would."""
    config = resolved.config
    for name, origin in resolved.origins.items():
        value = getattr(config, name)
        if value is None:
            print(f"# {name} is not set")
        else:
            plain = str(value) if isinstance(value, Path) else value
            print(f"{name} = {json.dumps(plain)}  # {origin}")
    check_tls(config)
    if config.tokens_file is not None:
        print(f"# {len(Tokens(config.tokens_file))} tokens")
    CertificateScopes(config.certificates_file)
    for name in config.models:
        card = read_card(locate(name))
        print(f"# model {card.name} {card.version}: {card.summary or 'no summary'}")


def _run(config: ServeConfig, console: Console) -> None:
    set_up_logs(config.log_format, config.log_level)
    check_port(config.host, config.port)
    if config.admin_port is not None:
        check_port(config.admin_host, config.admin_port)
    check_tls(config)
    if config.threads:
        import torch

        torch.set_num_threads(config.threads)
    stop = _Stop()
    load = partial(ovperception.load, device=config.device, dtype=config.dtype)
    models: list[ServedModel] = [load(name) for name in config.models]
    server = Server(models, config, load=load, observers=[AccessLog()], on_fatal=stop.fail)
    server.start()
    _reload_on_hangup(server)
    names = ", ".join(served.name for served in models)
    console.print(f"listening on [bold]{server.address}[/bold] ({names} on {config.device})")
    if server.admin_port:
        console.print(f"models are loaded through {config.admin_host}:{server.admin_port}")
    if server.metrics_port:
        console.print(f"metrics on http://{config.metrics_host}:{server.metrics_port}/metrics")
    stop.wait()
    if stop.fatal is not None:
        console.print("stopping: the device is lost")
        server.stop(0)
        raise OVPError(
            "The device failed, and what it would answer cannot be trusted",
            got=f"{type(stop.fatal).__name__}: {stop.fatal}",
            mend="Start the server again; under systemd or Kubernetes that happens by itself",
        ) from stop.fatal
    console.print("stopping: calls in work may end")
    server.stop(config.grace_s)


class _Stop:
    """Why to stop: a signal, or a lost device."""

    def __init__(self) -> None:
        self.fatal: Exception | None = None
        self._event = threading.Event()
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def wait(self) -> None:
        self._event.wait()

    def fail(self, error: Exception) -> None:
        self.fatal = error
        self._event.set()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._event.is_set():
            os._exit(128 + number)
        self._event.set()


def _reload_on_hangup(server: Server) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        # Not in the handler: it interrupts code that may hold the locks a reload needs.
        threading.Thread(target=server.reload, name="ovperception-reload").start()

    signal.signal(signal.SIGHUP, handle)
