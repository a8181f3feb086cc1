"""The services of a server that a client calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ovperception.v1.model_service_pb2_grpc import ModelServiceStub
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.v1.shared_memory_service_pb2_grpc import SharedMemoryServiceStub
from ovperception.v1.vocabulary_service_pb2_grpc import VocabularyServiceStub

__all__ = ["Service", "stubs"]

Service = Literal["models", "perception", "shared_memory", "vocabularies"]


# `Any`: the stubs are typed for channels of threads, and serve those of asyncio as well.
def stubs(channel: Any) -> Mapping[Service, Any]:
    """What the methods of each service are called on."""
    return {
        "models": ModelServiceStub(channel),
        "perception": PerceptionServiceStub(channel),
        "shared_memory": SharedMemoryServiceStub(channel),
        "vocabularies": VocabularyServiceStub(channel),
    }
