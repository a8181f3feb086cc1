"""The gRPC service over `ovperception`."""

from serving.config import ServerConfig
from serving.server import Server

__all__ = ["Server", "ServerConfig"]
