"""What a server says about itself and about its answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ovperception.v1 import image_pb2, results_pb2
from ovperception.v1 import perception_service_pb2 as pb

__all__ = ["ModelCard", "Reply", "ServerInfo", "read_model", "read_reply", "read_server_info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model of a server.

    Attributes:
        name: Name to ask for.
        version: Version of its weights.
        digest: SHA-256 (hex) over backbone and head weights.
        tasks: What it can be asked: detect, semantic, panoptic.
        backbone: Name of its backbone.
        embed_dim: D, length of its embeddings.
    """

    name: str
    version: str
    digest: str
    tasks: frozenset[str]
    backbone: str
    embed_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """A server and its limits; beyond a limit it refuses with a reason.

    Attributes:
        version: Of the server.
        models: What it serves; the first is its default.
        image_formats: Encoded formats it reads, such as ``jpeg``.
        pixel_formats: Raw layouts it reads, such as ``nv12``.
        label_encodings: How it writes label maps, such as ``png``.
        mask_encodings: How it writes masks, such as ``cropped_rle``.
        outputs: What batches and streams can ask for, such as ``detect``.
        shared_memory: Whether this client may share memory with it.
        scaled_decode: Whether it may decode JPEG images at a part of their size where a model works at less.
        max_message_bytes: Largest request or reply.
        max_pixels: Largest image.
        max_classes: Largest vocabulary.
        max_texts: Most words of a vocabulary, texts, or boxes in one call.
        max_requests: Calls in work or waiting at once.
        max_kept_bytes: Bytes of kept images.
        kept_ttl_s: How long an unused kept image lives.
        max_batch_items: Images in one batch.
        max_outputs: Outputs asked of one image.
        max_in_flight: Frames of a stream without a reply.
        max_streams: Streams open at once.
        max_vocabulary_bytes: Bytes of kept vocabularies.
        vocabulary_ttl_s: How long an unused kept vocabulary lives.
    """

    version: str
    models: tuple[ModelCard, ...]
    image_formats: tuple[str, ...]
    pixel_formats: tuple[str, ...]
    label_encodings: tuple[str, ...]
    mask_encodings: tuple[str, ...]
    outputs: tuple[str, ...]
    shared_memory: bool
    scaled_decode: bool
    max_message_bytes: int
    max_pixels: int
    max_classes: int
    max_texts: int
    max_requests: int
    max_kept_bytes: int
    kept_ttl_s: float
    max_batch_items: int
    max_outputs: int
    max_in_flight: int
    max_streams: int
    max_vocabulary_bytes: int
    vocabulary_ttl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came with an answer.

    Attributes:
        request_id: Id under which the server logged the call.
        model: The model that answered.
        size: (height, width) of the presented image; zeros if the call was about none.
        image_id: Handle of the image if the server keeps it.
        vocabulary_hash: Content hash of the words the server understood.
        timing: Milliseconds by stage as the server measured them, and ``round_trip`` as the client did.
        batch_size: Images that shared the pass through the backbone; 0 if none was needed.
        truncated: Whether the largest number of results was reached.
        warnings: What went otherwise than asked.
    """

    request_id: str
    model: ModelCard
    size: tuple[int, int]
    image_id: str
    vocabulary_hash: str
    timing: Mapping[str, float]
    batch_size: int
    truncated: bool
    warnings: tuple[str, ...]


def read_reply(info: results_pb2.ResultInfo, round_trip_ms: float) -> Reply:
    """What `info` says."""
    timing = {
        field.name.removesuffix("_ms"): float(getattr(info.timing, field.name))
        for field in info.timing.DESCRIPTOR.fields
        if field.name.endswith("_ms")
    }
    return Reply(
        request_id=info.request_id,
        model=read_model(info.model),
        size=(info.image.height, info.image.width),
        image_id=info.image.image_id,
        vocabulary_hash=info.vocabulary.content_hash,
        timing=timing | {"round_trip": round_trip_ms},
        batch_size=info.timing.batch_size,
        truncated=info.truncated,
        warnings=tuple(info.warnings),
    )


def read_model(info: results_pb2.ModelInfo) -> ModelCard:
    """What `info` says."""
    return ModelCard(
        name=info.name,
        version=info.version,
        digest=info.weights_digest,
        tasks=frozenset(results_pb2.Task.Name(task).removeprefix("TASK_").lower() for task in info.tasks),
        backbone=info.backbone,
        embed_dim=info.embedding_dimension,
    )


def read_server_info(reply: pb.GetServerInfoResponse) -> ServerInfo:
    """What `reply` says."""
    limits = reply.limits
    return ServerInfo(
        version=reply.version,
        models=tuple(map(read_model, reply.models)),
        image_formats=tuple(reply.image_formats),
        pixel_formats=_names(image_pb2.PixelFormat, reply.pixel_formats),
        label_encodings=_names(results_pb2.LabelEncoding, reply.label_encodings),
        mask_encodings=_names(results_pb2.MaskEncoding, reply.mask_encodings),
        outputs=tuple(reply.outputs),
        shared_memory=reply.shared_memory,
        scaled_decode=reply.scaled_decode,
        max_message_bytes=limits.max_message_bytes,
        max_pixels=limits.max_pixels,
        max_classes=limits.max_classes,
        max_texts=limits.max_texts,
        max_requests=limits.max_requests,
        max_kept_bytes=limits.max_kept_bytes,
        kept_ttl_s=limits.kept_ttl.ToNanoseconds() / 1e9,
        max_batch_items=limits.max_batch_items,
        max_outputs=limits.max_outputs,
        max_in_flight=limits.max_in_flight,
        max_streams=limits.max_streams,
        max_vocabulary_bytes=limits.max_vocabulary_bytes,
        vocabulary_ttl_s=limits.vocabulary_ttl.ToNanoseconds() / 1e9,
    )


# Any: the wrapper of an enum has no public type.
def _names(kind: Any, values: Iterable[int]) -> tuple[str, ...]:
    """The names of an enum's values, without what all begin with; those a newer server has are left out."""
    known = kind.values()
    prefix = kind.Name(0).removesuffix("UNSPECIFIED")
    return tuple(kind.Name(value).removeprefix(prefix).lower() for value in values if value in known)
