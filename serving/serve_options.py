"""The flags of ``ovp serve``, by the names of its parameters; in brackets what holds without them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.config import ServeConfig

_D = ServeConfig()

Model = Annotated[
    list[str] | None, typer.Option(help="Name or bundle; give it again for more. The first is the default.")
]
Config = Annotated[
    Path | None, typer.Option(envvar="OVP_CONFIG", help="TOML file of settings; flags go over it.")
]
CheckConfig = Annotated[
    bool, typer.Option("--check-config", help="Print the settings, check their files, and end.")
]
Host = Annotated[str | None, typer.Option(help=f"Address to listen on. [{_D.host}]")]
Port = Annotated[int | None, typer.Option(help=f"Port; 0 takes a free one. [{_D.port}]")]
Device = Annotated[str | None, typer.Option(help=f"cpu, cuda, cuda:1. [{_D.device}]")]
Dtype = Annotated[str | None, typer.Option(help=f"Of the backbone: float32, bfloat16, float16. [{_D.dtype}]")]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads a model computes with; 0 leaves it to torch. [0]")
]
TlsCert = Annotated[Path | None, typer.Option(help="Certificate chain of the server, PEM.")]
TlsKey = Annotated[Path | None, typer.Option(help="Its key, PEM.")]
TlsClientCa = Annotated[
    Path | None, typer.Option(help="Clients must show a certificate of these authorities, PEM.")
]
TokensFile = Annotated[
    Path | None, typer.Option(help="Callers must bring a token: lines of name:scopes:token.")
]
AdminPort = Annotated[int | None, typer.Option(help="Port to load and unload models through.")]
MetricsPort = Annotated[int | None, typer.Option(help="HTTP port for Prometheus.")]
TracingEndpoint = Annotated[
    str | None, typer.Option(help="OTLP collector for traces: http://localhost:4317.")
]
MaxClasses = Annotated[int | None, typer.Option(help=f"Largest vocabulary. [{_D.max_classes}]")]
MaxPixels = Annotated[int | None, typer.Option(help=f"Largest image. [{_D.max_pixels}]")]
MaxRequests = Annotated[int | None, typer.Option(help=f"Calls in work or waiting. [{_D.max_requests}]")]
MaxBatch = Annotated[int | None, typer.Option(help=f"Images in one pass. [{_D.max_batch}]")]
KeepBytes = Annotated[
    int | None, typer.Option(help=f"Bytes of images kept for later questions. [{_D.max_kept_bytes}]")
]
KeepSeconds = Annotated[
    float | None, typer.Option(help=f"How long an unused one is kept. [{_D.kept_ttl_s:g}]")
]
Grace = Annotated[float | None, typer.Option(help=f"Seconds that calls in work get to end. [{_D.grace_s:g}]")]
LogFormat = Annotated[str | None, typer.Option(help="text, or json: an object a line. [text]")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every call.")]
More = Annotated[
    list[str] | None, typer.Option("--set", help="Any other setting: NAME=VALUE; give it again for more.")
]
