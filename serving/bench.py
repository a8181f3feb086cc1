"""``ovp bench``: load on a server, of any kind of picture, words and arrival, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.markup import escape

from ovperception.client import TLS
from ovperception.client.connection import Connection
from ovperception.commands.server_access import ServerAccess
from ovperception.errors import InvalidParameter, Unavailable
from ovperception.images import write_file
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from serving import bench_options as options
from serving.bench_load import Load, Sample, closed_loop, open_loop, streams
from serving.bench_plan import Plan, read_sizes, requests_of
from serving.bench_report import FORMAT, Report, compare, machine, read_report, summary, table

__all__ = ["app", "run"]

app = typer.Typer(add_completion=False, help="Measure a server under load.")
_CHANNELS = 8
_MESSAGE_BYTES = 32 * 2**20


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    server: options.Server = "",
    model: options.Model = "",
    stub_ms: options.StubMs = 8.0,
    concurrency: options.Concurrency = 0,
    rate: options.Rate = 0.0,
    stream: options.Stream = 0,
    duration: options.Duration = 10.0,
    warm_up: options.WarmUp = 1.0,
    sizes: options.Sizes = "640x480",
    vocabularies: options.Vocabularies = 1,
    classes: options.Classes = 16,
    masks: options.Masks = True,
    timeout: options.Timeout = 30.0,
    token_file: options.TokenFile = None,
    tls: options.Tls = False,
    tls_ca: options.TlsCa = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    out: options.Out = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure a server under load.

    Latency is told by stage, as replies tell it; `outside` is what is left: the network, waiting to be sent.
    """
    if context.invoked_subcommand:
        return
    plan = Plan(
        model=model if server else "",
        sizes=read_sizes(sizes),
        vocabularies=vocabularies,
        classes=classes,
        masks=masks,
        concurrency=concurrency or (0 if rate or stream else 8),
        rate=rate,
        streams=stream,
        duration_s=duration,
        warm_up_s=warm_up,
        timeout_s=timeout,
    )
    access = _access(server, timeout, token_file, tls=tls, shown=(tls_ca, tls_cert, tls_key))
    with ExitStack() as stack:
        address, max_batch = (server, 0) if server else stack.enter_context(_own_server(model, stub_ms))
        report = run(plan, address, tls=access.certificates(), token=access.token(), max_batch=max_batch)
    _show(report, out, as_json=as_json)


@app.command("compare")
def compare_command(
    before: Annotated[Path, typer.Argument(help="Report A.")],
    after: Annotated[Path, typer.Argument(help="Report B.")],
) -> None:
    """Put two reports side by side."""
    made, differences = compare(read_report(before), read_report(after))
    console = Console(highlight=False)
    console.print(made)
    for line in differences:
        console.print(f"[yellow]differs:[/yellow] {escape(line)}")


def run(plan: Plan, address: str, *, tls: TLS | None = None, token: str = "", max_batch: int = 0) -> Report:
    """Carry out a plan.

    Args:
        plan: The plan.
        address: ``host:port`` of the server.
        tls: How to know it; None for no TLS.
        token: Sent with each request; empty for none.
        max_batch: Images that one pass has room for, where it is known.

    Returns:
        The report, as it stands in JSON.

    Raises:
        InvalidParameter: The address is none, or the token would go over a network in clear.
        Unavailable: The server does not answer the first question.
    """
    requests = requests_of(plan)
    connection = Connection(
        address=address, tls=tls, token=token, timeout_s=plan.timeout_s, max_message_bytes=_MESSAGE_BYTES
    )
    with ExitStack() as stack:
        channels = [stack.enter_context(_connect(connection, number)) for number in range(_CHANNELS)]
        load = Load(
            channels=channels,
            requests=requests,
            duration_s=plan.warm_up_s,
            timeout_s=plan.timeout_s,
            metadata=connection.metadata,
        )
        _ask_each_vocabulary(load, address)
        if plan.warm_up_s > 0:
            _put(load, plan)
        load.duration_s = plan.duration_s
        result = summary(_put(load, plan), plan.duration_s, max_batch)
    # As JSON has it, so that a report is the same before it was written and after it was read.
    plain = json.loads(json.dumps(asdict(plan)))
    return {"format": FORMAT, "plan": plain, "server": address, "machine": machine(), "result": result}


def _put(load: Load, plan: Plan) -> list[Sample]:
    if plan.rate:
        return open_loop(load, plan.rate, seed=plan.seed)
    if plan.streams:
        return streams(load, plan.streams)
    return closed_loop(load, plan.concurrency)


def _ask_each_vocabulary(load: Load, address: str) -> None:
    """New words are encoded when they are first asked for; that is paid here, once."""
    stub = PerceptionServiceStub(load.channels[0])
    try:
        for request in load.requests:
            stub.DetectObjects(request, timeout=max(120.0, load.timeout_s), metadata=load.metadata)
    except grpc.RpcError as error:
        text = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
        raise Unavailable(f"{address} does not answer a question", got=text) from None


def _connect(connection: Connection, number: int) -> grpc.Channel:
    # Channels of equal options would share one connection.
    options = [*connection.options, ("ovp.channel", number)]
    if connection.tls is None:
        return grpc.insecure_channel(connection.address, options)
    return grpc.secure_channel(connection.address, connection.tls.credentials(), options)


def _access(
    server: str,
    timeout_s: float,
    token_file: Path | None,
    *,
    tls: bool,
    shown: tuple[Path | None, Path | None, Path | None],
) -> ServerAccess:
    """What is shown to the server."""
    if not server and (tls or token_file is not None or any(shown)):
        raise InvalidParameter(
            "Tokens and certificates are for a server", field="server", expected="--server HOST:PORT"
        )
    return ServerAccess(address=server, timeout_s=timeout_s, token_file=token_file, tls=tls, shown=shown)


def _show(report: Report, out: Path | None, *, as_json: bool) -> None:
    if out is not None:
        write_file(out, f"{json.dumps(report, indent=1)}\n".encode())
    if as_json:
        print(json.dumps(report))
    else:
        Console(highlight=False).print(table(report))


@contextmanager
def _own_server(model: str, stub_ms: float) -> Iterator[tuple[str, int]]:
    """Address and batch size of a server in this process."""
    import ovperception
    from serving.config import ServerConfig
    from serving.models import ServedModel
    from serving.server import Server
    from serving.stub_model import StubModel

    served: ServedModel = ovperception.load(model) if model else StubModel(pass_ms=stub_ms)
    # One client makes all the load, and is not to be held to its share.
    limit = ServerConfig().max_requests
    with Server([served], ServerConfig(port=0, max_client_requests=limit)) as server:
        yield server.address, server.engine.config.max_batch
