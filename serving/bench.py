"""``ovp bench``: load on a server, of any kind of picture, words and arrival, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import cv2
import grpc
import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

from ovperception.errors import InvalidParameter, MissingFile, Unavailable
from ovperception.images import write_file
from ovperception.v1 import image_pb2, vocabulary_pb2
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from serving.bench_load import Load, Metadata, Sample, closed_loop, open_loop, streams
from serving.bench_report import FORMAT, compare, machine, read_report, summary, table

__all__ = ["Plan", "app", "requests_of", "run"]

app = typer.Typer(add_completion=False, help="Measure a server under load.")
_CHANNELS = 8
_MESSAGE_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked, and how often.

    Attributes:
        model: Name; empty for the server's first.
        sizes: (width, height) of the pictures, in turn.
        vocabularies: How many different ones, in turn.
        classes: Words in each.
        masks: Whether masks are asked for.
        concurrency: Callers of the closed loop; 0 for none.
        rate: Requests a second of the open loop; 0 for none.
        streams: Streams; 0 for none.
        duration_s: For how long.
        warm_up_s: For how long before that.
        timeout_s: Deadline of a request.
        seed: Of pictures and arrivals.
    """

    model: str = ""
    sizes: tuple[tuple[int, int], ...] = ((640, 480),)
    vocabularies: int = 1
    classes: int = 16
    masks: bool = True
    concurrency: int = 8
    rate: float = 0.0
    streams: int = 0
    duration_s: float = 10.0
    warm_up_s: float = 1.0
    timeout_s: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        kinds = [name for name in ("concurrency", "rate", "streams") if getattr(self, name) > 0]
        if len(kinds) != 1:
            raise InvalidParameter(
                "A load is of one kind", expected="concurrency, rate or streams", got=" and ".join(kinds)
            )
        for name in ("vocabularies", "classes", "duration_s", "timeout_s"):
            if not getattr(self, name) > 0:
                raise InvalidParameter(
                    "There must be some", field=name, expected="more than 0", got=getattr(self, name)
                )


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    server: Annotated[
        str, typer.Option(help="host:port; none serves here what --stub or --model says.")
    ] = "",
    model: Annotated[str, typer.Option(help="Model to ask; without --server, to load.")] = "",
    stub_ms: Annotated[float, typer.Option(help="Without --server and --model: cost of a pass.")] = 8.0,
    concurrency: Annotated[int, typer.Option(help="Callers of a closed loop. [8]")] = 0,
    rate: Annotated[float, typer.Option(help="Requests a second of an open loop instead.")] = 0.0,
    stream: Annotated[int, typer.Option("--streams", help="Streams instead.")] = 0,
    duration: Annotated[float, typer.Option(help="Seconds.")] = 10.0,
    warm_up: Annotated[float, typer.Option(help="Seconds before that.")] = 1.0,
    sizes: Annotated[str, typer.Option(help="Sizes of pictures in turn: 640x480,1280x720.")] = "640x480",
    vocabularies: Annotated[int, typer.Option(help="Different vocabularies, in turn.")] = 1,
    classes: Annotated[int, typer.Option(help="Words in each.")] = 16,
    masks: Annotated[bool, typer.Option(help="Ask for masks.")] = True,
    timeout: Annotated[float, typer.Option(help="Deadline of a request, in seconds.")] = 30.0,
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="Authorities of the server; turns TLS on.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the report, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure a server under load.

    Latency is told by stage, as replies tell it; `outside` is what is left: the network, waiting to be sent.
    """
    if context.invoked_subcommand:
        return
    plan = Plan(
        model=model if server else "",
        sizes=_sizes(sizes),
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
    token = _read(token_file).decode().strip() if token_file else ""
    metadata: Metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with ExitStack() as stack:
        max_batch = 0
        if not server:
            server, max_batch = stack.enter_context(_own_server(model, stub_ms))
        credentials = grpc.ssl_channel_credentials(_read(tls_ca)) if tls_ca else None
        report = run(plan, server, metadata=metadata, credentials=credentials, max_batch=max_batch)
    if out is not None:
        write_file(out, f"{json.dumps(report, indent=1)}\n".encode())
    if as_json:
        print(json.dumps(report))
    else:
        Console(highlight=False).print(table(report))


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


def run(
    plan: Plan,
    address: str,
    *,
    metadata: Metadata = (),
    credentials: grpc.ChannelCredentials | None = None,
    max_batch: int = 0,
) -> dict[str, object]:
    """Carry out a plan.

    Args:
        plan: The plan.
        address: ``host:port`` of the server.
        metadata: Sent with each request, such as a token.
        credentials: TLS; None for none.
        max_batch: Images that one pass has room for, where it is known.

    Returns:
        The report, as it stands in JSON.

    Raises:
        Unavailable: The server does not answer the first question.
    """
    requests = requests_of(plan)
    with ExitStack() as stack:
        channels = [
            stack.enter_context(_connect(address, credentials, number)) for number in range(_CHANNELS)
        ]
        _ask_each_vocabulary(channels[0], requests, plan, metadata, address)
        load = Load(
            channels=channels,
            requests=requests,
            duration_s=plan.warm_up_s,
            timeout_s=plan.timeout_s,
            metadata=metadata,
        )
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


def requests_of(plan: Plan) -> list[pb.DetectObjectsRequest]:
    """Every pairing of a size and a vocabulary, shuffled."""
    words = [
        vocabulary_pb2.Vocabulary(
            classes=[{"name": f"thing {number}.{index}"} for index in range(plan.classes)]
        )
        for number in range(plan.vocabularies)
    ]
    pictures = [_picture(size, plan.seed + number) for number, size in enumerate(plan.sizes)]
    asked = [
        pb.DetectObjectsRequest(
            model=plan.model,
            image=image_pb2.Image(encoded=picture),
            vocabulary=vocabulary_pb2.VocabularySpec(inline=vocabulary),
            include_masks=plan.masks,
        )
        for vocabulary in words
        for picture in pictures
    ]
    order = np.random.default_rng(plan.seed).permutation(len(asked))
    return [asked[number] for number in order]


def _picture(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG about as large as a photograph of this (width, height)."""
    width, height = size
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    smooth = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grainy = np.clip(smooth + rng.integers(-6, 7, smooth.shape, np.int16), 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", grainy, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])


def _ask_each_vocabulary(
    channel: grpc.Channel,
    requests: Sequence[pb.DetectObjectsRequest],
    plan: Plan,
    metadata: Metadata,
    address: str,
) -> None:
    """New words are encoded when they are first asked for; that is paid here, once."""
    stub = PerceptionServiceStub(channel)
    try:
        for request in requests:
            stub.DetectObjects(request, timeout=max(120.0, plan.timeout_s), metadata=metadata)
    except grpc.RpcError as error:
        text = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
        raise Unavailable(f"{address} does not answer a question", got=text) from None


@contextmanager
def _connect(
    address: str, credentials: grpc.ChannelCredentials | None, number: int
) -> Iterator[grpc.Channel]:
    options = [
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MESSAGE_BYTES),
        # Channels of equal options would share one connection.
        ("ovp.channel", number),
    ]
    if credentials is not None:
        channel = grpc.secure_channel(address, credentials, options)
    else:
        channel = grpc.insecure_channel(address, options)
    with channel:
        yield channel


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


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    try:
        sizes = tuple((int(w), int(h)) for w, h in (part.split("x") for part in text.split(",")))
    except ValueError:
        sizes = ()
    if not sizes or min(min(size) for size in sizes) < 1:
        raise InvalidParameter("These are no sizes", field="sizes", expected="640x480,1280x720", got=text)
    return sizes


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingFile("The file cannot be read", got=f"{path}: {error.strerror}") from None
