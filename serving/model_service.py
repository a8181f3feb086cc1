"""The methods of `ModelService`: which models are loaded."""

from __future__ import annotations

import grpc

from ovperception.errors import UnknownModel
from ovperception.v1 import model_service_pb2 as pb
from ovperception.v1.model_service_pb2_grpc import ModelServiceServicer
from serving.engine import Engine

__all__ = ["ModelService"]


class ModelService(ModelServiceServicer):
    """The models that are loaded.

    Args:
        engine: Has them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """List them."""
        return pb.ListModelsResponse(models=self._engine.models.infos.values())

    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.GetModelResponse:
        """Tell about one."""
        try:
            name = self._engine.models.get(request.name).name
        except UnknownModel as error:
            error.field = "name"
            raise
        return pb.GetModelResponse(model=self._engine.models.infos[name])
