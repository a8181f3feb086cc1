"""What a server may be told, and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from ovperception.errors import InvalidParameter

__all__ = ["ServerConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings of a server.

    Attributes:
        host: Address to listen on. The default is reachable from this machine alone: there is no login.
        port: Port to listen on; 0 takes a free one.
        max_message_bytes: Largest request or reply. gRPC's own 4 MiB refuse a raw 1080p picture.
        max_pixels: Largest image.
        max_classes: Largest vocabulary.
        max_texts: Most texts, boxes, or words of a vocabulary in one call.
        max_requests: Calls in work or waiting; one more is refused at once.
        max_queued_bytes: Bytes of their requests together.
        max_queued_pixels: Decoded pixels of their images together.
        max_batch: Images in one pass through a backbone.
        max_kept_bytes: Bytes of the scenes kept for later questions.
        kept_ttl_s: How long a kept scene lives without being asked.
        max_wait_s: How long a call without a deadline may take.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    max_message_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000
    max_classes: int = 4096
    max_texts: int = 16_384
    max_requests: int = 64
    max_queued_bytes: int = 256 * 2**20
    max_queued_pixels: int = 256_000_000
    max_batch: int = 8
    max_kept_bytes: int = 512 * 2**20
    kept_ttl_s: float = 300.0
    max_wait_s: float = 120.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InvalidParameter("No such port", field="port", expected="0 to 65535", got=self.port)
        counts = ("max_message_bytes", "max_pixels", "max_classes", "max_texts", "max_requests", "max_batch")
        for name in (*counts, "kept_ttl_s", "max_wait_s"):
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
        if self.max_kept_bytes < 0:
            raise InvalidParameter("A limit is negative", field="max_kept_bytes", got=self.max_kept_bytes)
