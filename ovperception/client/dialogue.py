"""What a client says and understands, without saying how it is carried: threads and asyncio share it.

A `Dialogue` is a generator that gives one call after another, is sent each reply, or has the error of ours it
ended with thrown in, and returns the answer. So what happens when the server has forgotten a picture or the
words, or finds a picture too large, is written once.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from ovperception.client.replies import ModelCard, ServerInfo, read_model, read_server_info
from ovperception.client.services import Service
from ovperception.v1 import model_service_pb2
from ovperception.v1 import perception_service_pb2 as pb

__all__ = ["Ask", "Dialogue", "models", "server_info"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """A call to make: a method, its request, and the service that has it."""

    method: str
    request: Any  # a message; each method has its own
    service: Service = "perception"


Dialogue = Generator[Ask, Any, T]


def server_info() -> Dialogue[ServerInfo]:
    """What the server serves, and its limits."""
    return read_server_info((yield Ask("GetServerInfo", pb.GetServerInfoRequest())))


def models() -> Dialogue[tuple[ModelCard, ...]]:
    """The models the server has loaded; the first is its default."""
    reply = yield Ask("ListModels", model_service_pb2.ListModelsRequest(), "models")
    return tuple(map(read_model, reply.models))
