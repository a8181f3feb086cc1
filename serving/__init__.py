"""The gRPC service over `ovperception`."""

import serving.grpc_reading  # noqa: F401 # before anything imports gRPC
from serving.config import ServerConfig
from serving.server import Server

__all__ = ["Server", "ServerConfig"]
