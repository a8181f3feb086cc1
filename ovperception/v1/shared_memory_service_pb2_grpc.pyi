import grpc

from ovperception.v1 import shared_memory_service_pb2

class SharedMemoryServiceStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    CreateSharedMemory: grpc.UnaryUnaryMultiCallable[shared_memory_service_pb2.CreateSharedMemoryRequest, shared_memory_service_pb2.CreateSharedMemoryResponse]
    DeleteSharedMemory: grpc.UnaryUnaryMultiCallable[shared_memory_service_pb2.DeleteSharedMemoryRequest, shared_memory_service_pb2.DeleteSharedMemoryResponse]

class SharedMemoryServiceServicer:
    def CreateSharedMemory(self, request: shared_memory_service_pb2.CreateSharedMemoryRequest, context: grpc.ServicerContext) -> shared_memory_service_pb2.CreateSharedMemoryResponse: ...
    def DeleteSharedMemory(self, request: shared_memory_service_pb2.DeleteSharedMemoryRequest, context: grpc.ServicerContext) -> shared_memory_service_pb2.DeleteSharedMemoryResponse: ...

def add_SharedMemoryServiceServicer_to_server(servicer: SharedMemoryServiceServicer, server: grpc.Server) -> None: ...
