"""What a server may be told, and its limits: one list of settings for files, environment, flags and code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovperception.errors import InvalidParameter

__all__ = ["ServeConfig", "ServerConfig"]

_COUNTS = (
    "max_message_bytes",
    "max_pixels",
    "max_classes",
    "max_texts",
    "max_requests",
    "max_queue_s",
    "max_batch",
    "max_batch_pixels",
    "max_calls_per_connection",
    "kept_ttl_s",
    "max_wait_s",
    "keepalive_s",
)
_PORTS = ("port", "admin_port", "metrics_port")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings of a server.

    Attributes:
        host: Address to listen on. The default is reachable from this machine alone.
        port: Port to listen on; 0 takes a free one.
        admin_host: Address of the port that models are loaded and unloaded through.
        admin_port: That port; None for none.
        metrics_host: Address of the HTTP port that Prometheus asks.
        metrics_port: That port; None for none.
        tls_cert: The server's certificate chain, PEM; with `tls_key` it turns TLS on. Read anew when changed.
        tls_key: The certificate's private key, PEM.
        tls_client_ca: Authorities whose certificates clients must show (mutual TLS), PEM.
        certificates_file: What the names in clients' certificates may do (`serving.certificate_scopes`);
            without it they may infer, and none may administer. Where there are tokens, these decide.
        tokens_file: Bearer tokens, one a line (`serving.tokens`); with it every call needs one.
        tracing_endpoint: OTLP collector over gRPC, such as ``http://localhost:4317``; empty for no traces.
        max_message_bytes: Largest request or reply. gRPC's own 4 MiB refuse a raw 1080p picture.
        max_pixels: Largest image.
        max_classes: Largest vocabulary.
        max_texts: Most texts, boxes, or words of a vocabulary in one call.
        max_requests: Calls in work or waiting; one more is refused at once.
        max_queued_bytes: Bytes of their requests together.
        max_queued_pixels: Decoded pixels of their images together.
        max_queue_s: A call that would have to wait longer than this for the model is refused at once.
        max_client_requests: Calls of one client in work or waiting; None leaves a quarter of `max_requests`
            to others.
        decode_threads: Threads that decode and resize pictures; 0 takes one for each CPU.
        scaled_decode: Decode JPEG files at a half, a quarter or an eighth where no model of a call works at
            more: as `ovperception.load(..., scaled_decode=True)`, faster, and not the numbers without it.
        max_batch: Images in one pass through a backbone.
        max_batch_pixels: Pixels of the network inputs of one pass together; one image may have more.
        max_calls_per_connection: Calls that one connection may have open.
        max_live_streams: StreamPerceive calls open at once; each has threads of its own.
        max_in_flight: Frames of one of them that may be without a reply.
        max_batch_items: Images in one BatchPerceive.
        max_outputs: Outputs asked of one image.
        max_vocabulary_bytes: Bytes of the vocabularies kept by handle.
        vocabulary_ttl_s: How long a kept vocabulary lives without being used.
        max_shared_bytes: Bytes of the memory shared with clients over a Unix socket.
        max_kept_bytes: Bytes of the scenes kept for later questions.
        kept_ttl_s: How long a kept scene lives without being asked.
        max_wait_s: How long a call without a deadline may take.
        keepalive_s: A connection that was silent for so long is asked whether it lives.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    certificates_file: Path | None = None
    tokens_file: Path | None = None
    tracing_endpoint: str = ""
    max_message_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000
    max_classes: int = 4096
    max_texts: int = 16_384
    max_requests: int = 64
    max_queued_bytes: int = 256 * 2**20
    max_queued_pixels: int = 256_000_000
    max_queue_s: float = 30.0
    max_client_requests: int | None = None
    decode_threads: int = 0
    scaled_decode: bool = False
    max_batch: int = 8
    max_batch_pixels: int = 16_000_000
    max_calls_per_connection: int = 256
    max_live_streams: int = 16
    max_in_flight: int = 16
    max_batch_items: int = 64
    max_outputs: int = 8
    max_vocabulary_bytes: int = 64 * 2**20
    vocabulary_ttl_s: float = 3600.0
    max_shared_bytes: int = 256 * 2**20
    max_kept_bytes: int = 512 * 2**20
    kept_ttl_s: float = 300.0
    max_wait_s: float = 120.0
    keepalive_s: float = 60.0

    def __post_init__(self) -> None:
        for name in _PORTS:
            port = getattr(self, name)
            if port is not None and not 0 <= port <= 65535:
                raise InvalidParameter("No such port", field=name, expected="0 to 65535", got=port)
        for name in _COUNTS:
            if not getattr(self, name) > 0:
                raise InvalidParameter(
                    "A limit must leave room for something",
                    field=name,
                    expected="more than 0",
                    got=getattr(self, name),
                )
        for total, one in (("max_queued_bytes", "max_message_bytes"), ("max_queued_pixels", "max_pixels")):
            if getattr(self, total) < getattr(self, one):
                raise InvalidParameter(
                    f"{total} leaves no room for one request of {one}",
                    field=total,
                    expected=f"at least {getattr(self, one)}",
                    got=getattr(self, total),
                )
        for name in ("max_kept_bytes", "max_shared_bytes", "decode_threads"):
            if getattr(self, name) < 0:
                raise InvalidParameter("A number is negative", field=name, got=getattr(self, name))
        if self.max_client_requests is not None and self.max_client_requests < 1:
            raise InvalidParameter(
                "A limit must leave room for something",
                field="max_client_requests",
                expected="more than 0, or nothing",
                got=self.max_client_requests,
            )
        self._check_tls()

    def _check_tls(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            lacking = "tls_key" if self.tls_key is None else "tls_cert"
            raise InvalidParameter(
                "TLS needs a certificate and its key", field=lacking, got="only one of them"
            )
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise InvalidParameter(
                "Clients can show certificates over TLS only",
                field="tls_client_ca",
                mend="Set tls_cert and tls_key",
            )
        if self.certificates_file is not None and (
            self.tls_client_ca is None or self.tokens_file is not None
        ):
            raise InvalidParameter(
                "Scopes of certificates are read only where certificates decide who may call",
                field="certificates_file",
                mend="Set tls_client_ca, and leave tokens_file away",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig(ServerConfig):
    """Settings of ``ovp serve``: those of the server, and what it serves.

    Attributes:
        models: Names or bundles; the first is the default.
        device: Where models run: ``cpu``, ``cuda``, ``cuda:1``.
        dtype: Of the backbones: ``float32``, ``bfloat16``, ``float16``.
        threads: CPU threads a model computes with; 0 leaves it to torch.
        grace_s: How long calls in work may go on after SIGTERM.
        log_format: ``text`` for people, ``json`` for machines: an object a line, one line a call.
        log_level: What is logged: ``debug``, ``info`` (every call), ``warning``, ``error``.
    """

    models: tuple[str, ...] = ("tiny",)
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    threads: int = 0
    grace_s: float = 10.0
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        # `super()` needs the class as it was before `slots=True` made it anew.
        ServerConfig.__post_init__(self)
        if not self.models or not all(self.models):
            raise InvalidParameter("A server needs at least one model", field="models", got=self.models)
        for name in ("threads", "grace_s"):
            if not getattr(self, name) >= 0:
                raise InvalidParameter(
                    "The number is negative", field=name, expected="0 or more", got=getattr(self, name)
                )
