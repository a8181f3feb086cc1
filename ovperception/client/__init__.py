"""The SDK for robots and scripts: what `ovperception.Scene` answers, asked of a server. Needs no torch."""

from ovperception.client.async_client import AsyncClient
from ovperception.client.async_scene import AsyncRemoteScene
from ovperception.client.async_stream import AsyncStream
from ovperception.client.client import Client
from ovperception.client.connection import TLS
from ovperception.client.frames import StreamReply
from ovperception.client.handles import StoredVocabulary
from ovperception.client.perceptions import Detect, Heatmap, Panoptic, Perception, Semantic
from ovperception.client.remote_scene import RemoteScene
from ovperception.client.replies import ModelCard, Reply, ServerInfo
from ovperception.client.shared_memory import SharedMemory, SharedPicture
from ovperception.client.stream import Stream

__all__ = [
    "TLS",
    "AsyncClient",
    "AsyncRemoteScene",
    "AsyncStream",
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
    "SharedMemory",
    "SharedPicture",
    "StoredVocabulary",
    "Stream",
    "StreamReply",
]
