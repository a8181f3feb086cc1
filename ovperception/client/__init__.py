"""The SDK for robots and scripts: what `ovperception.Scene` answers, asked of a server. Needs no torch."""

from ovperception.client.async_client import AsyncClient
from ovperception.client.async_scene import AsyncRemoteScene
from ovperception.client.client import Client
from ovperception.client.connection import TLS
from ovperception.client.perceptions import Detect, Heatmap, Panoptic, Perception, Semantic
from ovperception.client.remote_scene import RemoteScene
from ovperception.client.replies import ModelCard, Reply, ServerInfo
from ovperception.client.stream import Stream, StreamReply

__all__ = [
    "TLS",
    "AsyncClient",
    "AsyncRemoteScene",
    "Client",
    "Detect",
    "Heatmap",
    "ModelCard",
    "Panoptic",
    "Perception",
    "RemoteScene",
    "Reply",
    "Semantic",
    "ServerInfo",
    "Stream",
    "StreamReply",
]
