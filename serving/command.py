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
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

import ovperception
from ovperception.bundle import read_card
from ovperception.catalogue import locate
from ovperception.errors import InvalidParameter, OVPError
from serving.certificate_scopes import CertificateScopes
from serving.config import ServeConfig
from serving.logs import AccessLog, set_up_logs
from serving.models import ServedModel
from serving.security import warnings_of
from serving.server import Server
from serving.settings import Resolved, resolve
from serving.tls import check_tls
from serving.tokens import Tokens

__all__ = ["serve"]

_D = ServeConfig()


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Name or bundle; give it again for more. The first is the default."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(envvar="OVP_CONFIG", help="TOML file of settings; flags go over it.")
    ] = None,
    check_config: Annotated[
        bool, typer.Option("--check-config", help="Print the settings, check their files, and end.")
    ] = False,
    host: Annotated[str | None, typer.Option(help=f"Address to listen on. [{_D.host}]")] = None,
    port: Annotated[int | None, typer.Option(help=f"Port; 0 takes a free one. [{_D.port}]")] = None,
    device: Annotated[str | None, typer.Option(help=f"cpu, cuda, cuda:1. [{_D.device}]")] = None,
    dtype: Annotated[
        str | None, typer.Option(help=f"Of the backbone: float32, bfloat16, float16. [{_D.dtype}]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads a model computes with; 0 leaves it to torch. [0]")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain of the server, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Clients must show a certificate of these authorities, PEM.")
    ] = None,
    tokens_file: Annotated[
        Path | None, typer.Option(help="Callers must bring a token: lines of name:scopes:token.")
    ] = None,
    admin_port: Annotated[int | None, typer.Option(help="Port to load and unload models through.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="HTTP port for Prometheus.")] = None,
    tracing_endpoint: Annotated[
        str | None, typer.Option(help="OTLP collector for traces: http://localhost:4317.")
    ] = None,
    max_classes: Annotated[int | None, typer.Option(help=f"Largest vocabulary. [{_D.max_classes}]")] = None,
    max_pixels: Annotated[int | None, typer.Option(help=f"Largest image. [{_D.max_pixels}]")] = None,
    max_requests: Annotated[
        int | None, typer.Option(help=f"Calls in work or waiting. [{_D.max_requests}]")
    ] = None,
    max_batch: Annotated[int | None, typer.Option(help=f"Images in one pass. [{_D.max_batch}]")] = None,
    keep_bytes: Annotated[
        int | None, typer.Option(help=f"Bytes of images kept for later questions. [{_D.max_kept_bytes}]")
    ] = None,
    keep_seconds: Annotated[
        float | None, typer.Option(help=f"How long an unused one is kept. [{_D.kept_ttl_s:g}]")
    ] = None,
    grace: Annotated[
        float | None, typer.Option(help=f"Seconds that calls in work get to end. [{_D.grace_s:g}]")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="text, or json: an object a line. [text]")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every call.")] = False,
    more: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting: NAME=VALUE; give it again for more.")
    ] = None,
) -> None:
    """Serve models over gRPC. SIGTERM or Ctrl-C lets calls in work end; a second one does not.

    Every setting can also stand in a file (--config) or in the environment (OVP_PORT, OVP_MAX_BATCH, ...).
    """
    flags: dict[str, object] = {
        **_pairs(more or ()),
        **{name: value for name, value in locals().items() if name in _FLAGS and value is not None},
    }
    renamed = {
        "models": model or None,
        "max_kept_bytes": keep_bytes,
        "kept_ttl_s": keep_seconds,
        "grace_s": grace,
    }
    flags |= {name: value for name, value in renamed.items() if value is not None}
    if verbose:
        flags["log_level"] = "info"
    resolved = resolve(flags, file=config)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for warning in warnings_of(resolved.config):
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    if check_config:
        _check(resolved)
    else:
        _run(resolved.config, console)


_FLAGS = {field.name for field in fields(ServeConfig)}


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
