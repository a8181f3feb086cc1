"""The flags of ``ovp bench``, by the names of its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Server = Annotated[str, typer.Option(help="host:port; none serves here what --stub-ms or --model says.")]
Model = Annotated[str, typer.Option(help="Model to ask; without --server, to load.")]
StubMs = Annotated[float, typer.Option(help="Without --server and --model: cost of a pass.")]
Concurrency = Annotated[int, typer.Option(help="Callers of a closed loop. [8]")]
Rate = Annotated[float, typer.Option(help="Requests a second of an open loop instead.")]
Stream = Annotated[int, typer.Option("--streams", help="Streams instead.")]
Duration = Annotated[float, typer.Option(help="Seconds.")]
WarmUp = Annotated[float, typer.Option(help="Seconds before that.")]
Sizes = Annotated[str, typer.Option(help="Sizes of pictures in turn: 640x480,1280x720.")]
Vocabularies = Annotated[int, typer.Option(help="Different vocabularies, in turn.")]
Classes = Annotated[int, typer.Option(help="Words in each.")]
Masks = Annotated[bool, typer.Option(help="Ask for masks.")]
Timeout = Annotated[float, typer.Option(help="Deadline of a request, in seconds.")]
TokenFile = Annotated[Path | None, typer.Option(help="With --server: a file with the bearer token alone.")]
Tls = Annotated[bool, typer.Option(help="With --server: TLS, trusting whom this machine trusts.")]
TlsCa = Annotated[Path | None, typer.Option(help="With --server: TLS, trusting these authorities (PEM).")]
TlsCert = Annotated[
    Path | None, typer.Option(help="With --server: the certificate to show (PEM); needs --tls-key.")
]
TlsKey = Annotated[Path | None, typer.Option(help="With --server: its key (PEM).")]
Out = Annotated[Path | None, typer.Option(help="Write the report, as JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
