import grpc

from ovperception.v1 import model_service_pb2

class ModelServiceStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    ListModels: grpc.UnaryUnaryMultiCallable[model_service_pb2.ListModelsRequest, model_service_pb2.ListModelsResponse]
    GetModel: grpc.UnaryUnaryMultiCallable[model_service_pb2.GetModelRequest, model_service_pb2.GetModelResponse]

class ModelServiceServicer:
    def ListModels(self, request: model_service_pb2.ListModelsRequest, context: grpc.ServicerContext) -> model_service_pb2.ListModelsResponse: ...
    def GetModel(self, request: model_service_pb2.GetModelRequest, context: grpc.ServicerContext) -> model_service_pb2.GetModelResponse: ...

def add_ModelServiceServicer_to_server(servicer: ModelServiceServicer, server: grpc.Server) -> None: ...
