"""The SDK for robots and scripts: what `ovperception.Scene` answers, asked of a server. Needs no torch."""

from ovperception.client.client import Client
from ovperception.client.connection import TLS
from ovperception.client.remote_scene import RemoteScene
from ovperception.client.replies import ModelCard, Reply, ServerInfo

__all__ = ["TLS", "Client", "ModelCard", "RemoteScene", "Reply", "ServerInfo"]
