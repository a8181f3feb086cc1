import grpc

from ovperception.v1 import model_admin_service_pb2

class ModelAdminServiceStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    LoadModel: grpc.UnaryUnaryMultiCallable[model_admin_service_pb2.LoadModelRequest, model_admin_service_pb2.LoadModelResponse]
    UnloadModel: grpc.UnaryUnaryMultiCallable[model_admin_service_pb2.UnloadModelRequest, model_admin_service_pb2.UnloadModelResponse]

class ModelAdminServiceServicer:
    def LoadModel(self, request: model_admin_service_pb2.LoadModelRequest, context: grpc.ServicerContext) -> model_admin_service_pb2.LoadModelResponse: ...
    def UnloadModel(self, request: model_admin_service_pb2.UnloadModelRequest, context: grpc.ServicerContext) -> model_admin_service_pb2.UnloadModelResponse: ...

def add_ModelAdminServiceServicer_to_server(servicer: ModelAdminServiceServicer, server: grpc.Server) -> None: ...
