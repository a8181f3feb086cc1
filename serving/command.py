"""``ovp serve``: models behind a port, until told to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

import ovperception
from ovperception.errors import InvalidParameter
from serving.config import ServerConfig
from serving.models import ServedModel
from serving.server import Server

__all__ = ["serve"]

_DEFAULTS = ServerConfig()


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Name or bundle; give it again for more. The first is the default."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. There is no login: mind who can reach it.")
    ] = (_DEFAULTS.host),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = _DEFAULTS.port,
    device: Annotated[str, typer.Option(help="Where models run: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the backbone: float32, bfloat16, float16.")] = "float32",
    threads: Annotated[
        int, typer.Option(help="CPU threads a model computes with; 0 leaves it to torch.")
    ] = 0,
    max_classes: Annotated[int, typer.Option(help="Largest vocabulary.")] = _DEFAULTS.max_classes,
    max_pixels: Annotated[int, typer.Option(help="Largest image, in pixels.")] = _DEFAULTS.max_pixels,
    max_requests: Annotated[int, typer.Option(help="Calls in work or waiting.")] = _DEFAULTS.max_requests,
    max_batch: Annotated[int, typer.Option(help="Images in one pass.")] = _DEFAULTS.max_batch,
    keep_bytes: Annotated[
        int, typer.Option(help="Bytes of encoded images kept for later questions.")
    ] = _DEFAULTS.max_kept_bytes,
    keep_seconds: Annotated[
        float, typer.Option(help="How long an unused one is kept.")
    ] = _DEFAULTS.kept_ttl_s,
    grace: Annotated[float, typer.Option(help="Seconds that calls in work get to end.")] = 10.0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every refused call.")] = False,
) -> None:
    """Serve models over gRPC. SIGTERM or Ctrl-C lets calls in work end; a second one does not."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING)
    config = ServerConfig(
        host=host,
        port=port,
        max_classes=max_classes,
        max_pixels=max_pixels,
        max_queued_pixels=max(_DEFAULTS.max_queued_pixels, max_pixels),
        max_requests=max_requests,
        max_batch=max_batch,
        max_kept_bytes=keep_bytes,
        kept_ttl_s=keep_seconds,
    )
    if threads < 0:
        raise InvalidParameter("The number of threads is negative", field="threads", got=threads)
    if threads:
        import torch

        torch.set_num_threads(threads)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    stop = _stop_on_signals()
    models: list[ServedModel] = [
        ovperception.load(name, device=device, dtype=dtype) for name in model or ["tiny"]
    ]
    server = Server(models, config)
    server.start()
    names = ", ".join(served.name for served in models)
    console.print(f"listening on [bold]{server.address}[/bold] ({names} on {device})")
    stop.wait()
    console.print("stopping: calls in work may end")
    server.stop(grace)


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop
