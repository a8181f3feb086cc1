"""The services of a server, each put where its callers are."""

from __future__ import annotations

import grpc

from ovperception.v1 import (
    model_admin_service_pb2,
    model_service_pb2,
    perception_service_pb2,
    shared_memory_service_pb2,
    vocabulary_service_pb2,
)
from ovperception.v1.model_admin_service_pb2_grpc import add_ModelAdminServiceServicer_to_server
from ovperception.v1.model_service_pb2_grpc import add_ModelServiceServicer_to_server
from ovperception.v1.perception_service_pb2_grpc import add_PerceptionServiceServicer_to_server
from ovperception.v1.shared_memory_service_pb2_grpc import add_SharedMemoryServiceServicer_to_server
from ovperception.v1.vocabulary_service_pb2_grpc import add_VocabularyServiceServicer_to_server
from serving.engine import Engine
from serving.model_admin import HealthReport, ModelAdminService, ModelLoader
from serving.model_service import ModelService
from serving.service import PerceptionService
from serving.shared_memory import SharedMemoryService
from serving.vocabularies import KeptVocabularies
from serving.vocabulary_service import VocabularyService
from serving.words import WordReader

__all__ = ["ADMIN_SERVICES", "PUBLIC_SERVICES", "add_admin_services", "add_public_services"]

PUBLIC_SERVICES = (
    perception_service_pb2.DESCRIPTOR.services_by_name["PerceptionService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    vocabulary_service_pb2.DESCRIPTOR.services_by_name["VocabularyService"].full_name,
    shared_memory_service_pb2.DESCRIPTOR.services_by_name["SharedMemoryService"].full_name,
)

ADMIN_SERVICES = (
    model_admin_service_pb2.DESCRIPTOR.services_by_name["ModelAdminService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
)


def add_public_services(engine: Engine, server: grpc.Server) -> None:
    """Put `PUBLIC_SERVICES` on a server."""
    config = engine.config
    kept = KeptVocabularies(max_bytes=config.max_vocabulary_bytes, ttl_s=config.vocabulary_ttl_s)
    add_PerceptionServiceServicer_to_server(PerceptionService(engine, WordReader(kept, config)), server)
    add_ModelServiceServicer_to_server(ModelService(engine), server)
    add_VocabularyServiceServicer_to_server(VocabularyService(kept, config), server)
    add_SharedMemoryServiceServicer_to_server(SharedMemoryService(engine.shared_memory), server)


def add_admin_services(engine: Engine, server: grpc.Server, load: ModelLoader, report: HealthReport) -> None:
    """Put `ADMIN_SERVICES` on a server.

    Args:
        engine: Has the models.
        server: Whose callers may change them.
        load: Makes a model of a name.
        report: Is told when a model begins or ceases to answer.
    """
    add_ModelAdminServiceServicer_to_server(ModelAdminService(engine, load, report), server)
    add_ModelServiceServicer_to_server(ModelService(engine), server)
