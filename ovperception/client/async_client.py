"""The client for asyncio: the words of `Client`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ovperception.client.async_calls import AsyncCalls
from ovperception.client.async_scene import AsyncRemoteScene
from ovperception.client.async_stream import AsyncStream
from ovperception.client.connection import TLS, Connection
from ovperception.client.dialogue import models, server_info
from ovperception.client.frames import Frames, Policy
from ovperception.client.handles import Words
from ovperception.client.perceptions import MaskEncoding, Output, Perception, output_messages
from ovperception.client.pictures import Pictures, Transport
from ovperception.client.questions import Questions
from ovperception.client.remote_image import RemoteImage
from ovperception.client.replies import ModelCard, Reply, ServerInfo
from ovperception.client.retries import Reconnects
from ovperception.client.scaling import Size, fit
from ovperception.client.shared_memory import SharedMemory, create_request
from ovperception.client.vocabularies import AsyncVocabularies
from ovperception.errors import OVPError
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import image_pb2, shared_memory_service_pb2

if TYPE_CHECKING:
    from ovperception.client.pictures import Source

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """Asks a server what `ovperception.Scene` answers locally, without holding up an event loop.

        async with AsyncClient("robot:50051") as client:
            detections = await client.detect("street.jpg", ["taxi", "traffic light|stoplight"])

    Pictures are read and encoded in a thread. Make it where the loop runs that uses it. It takes, answers and
    raises what `Client` does.

    Args:
        address: ``host:port``, or ``unix:PATH``.
        model: Name of the model to ask; empty means the server's first.
        timeout_s: Seconds that a call may take in all, with all its tries.
        transport: As of `Client`.
        max_message_bytes: Largest request or reply.
        max_pixels: As of `Client`.
        mask_encoding: As of `Client`.
        tls: As of `Client`.
        token: Bearer token, shown with each call.

    Raises:
        InvalidParameter: One of these cannot be.
        MissingFile: A certificate cannot be read.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str | None = None,
        timeout_s: float = 30.0,
        transport: Transport = "auto",
        max_message_bytes: int = 32 * 2**20,
        max_pixels: int | None = None,
        mask_encoding: MaskEncoding = "cropped_rle",
        tls: TLS | bool | None = None,
        token: str = "",
    ) -> None:
        self.connection = Connection(
            address=address,
            tls=TLS() if tls is True else tls or None,
            token=token,
            timeout_s=timeout_s,
            max_message_bytes=max_message_bytes,
        )
        self.address = address
        self.model = model or ""
        self.questions = Questions(self.model, max_pixels, mask_encoding)
        self.pictures = Pictures(transport, local=self.connection.local, max_bytes=max_message_bytes)
        self._channel = self.connection.async_channel()
        self.calls = AsyncCalls(self.connection, self._channel)

    async def detect(
        self,
        image: Source,
        words: Words,
        *,
        boxes: ArrayLike | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        nms_iou_threshold: float | None = None,
        masks: bool = True,
    ) -> Detections:
        """The objects of an image that `words` name; see `Client.detect`."""
        scene = await self.scene(image)
        return await scene.detect(
            words,
            boxes=boxes,
            score_threshold=score_threshold,
            max_detections=max_detections,
            nms_iou_threshold=nms_iou_threshold,
            masks=masks,
        )

    async def semantic(
        self,
        image: Source,
        words: Words,
        *,
        score_threshold: float | None = None,
        scores: bool = False,
    ) -> SemanticMap:
        """A class per pixel; see `RemoteScene.semantic`."""
        scene = await self.scene(image)
        return await scene.semantic(words, score_threshold=score_threshold, scores=scores)

    async def panoptic(
        self,
        image: Source,
        words: Words,
        *,
        score_threshold: float | None = None,
    ) -> PanopticMap:
        """A segment per pixel; see `ovperception.Scene.panoptic`."""
        return await (await self.scene(image)).panoptic(words, score_threshold=score_threshold)

    async def heatmap(self, image: Source, text: str) -> NDArray[np.float32]:
        """(H, W): how well each pixel fits `text`; see `ovperception.Scene.heatmap`."""
        return await (await self.scene(image)).heatmap(text)

    async def embed_regions(self, image: Source, boxes: ArrayLike) -> NDArray[np.float32]:
        """(N, D): one vector per (N, 4) xyxy box; see `ovperception.Scene.embed_regions`."""
        return await (await self.scene(image)).embed_regions(boxes)

    async def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(T, D) vectors of unit length; see `ovperception.Model.embed_text`."""
        return await self.calls.run(self.questions.embed_text(texts))

    async def embed_image(self, image: Source) -> NDArray[np.float32]:
        """(D,) vector of a whole image; see `ovperception.Model.embed_image`."""
        return await self.calls.run(self.questions.embed_image(RemoteImage(await self._picture(image))))

    async def perceive(
        self,
        images: Sequence[Source],
        words: Words | None = None,
        *,
        outputs: Sequence[Output] = ("detect",),
    ) -> list[Perception | OVPError]:
        """Several outputs of each of several images; see `Client.perceive`."""
        pictures = [await self._picture(image) for image in images]
        return await self.calls.run(self.questions.perceive(pictures, words, outputs))

    def stream(
        self,
        words: Words | None = None,
        *,
        outputs: Sequence[Output] = ("detect",),
        policy: Policy = "drop_oldest",
        max_in_flight: int = 4,
        frame_timeout_s: float | None = None,
        reconnect_s: float = 30.0,
    ) -> AsyncStream:
        """Ask the same about frame after frame; see `AsyncStream`, and `Client.stream` for what it takes."""
        frames = Frames(
            self.questions.handles,
            words,
            output_messages(outputs),
            model=self.model,
            policy=policy,
            max_in_flight=max_in_flight,
            frame_timeout_s=frame_timeout_s,
        )
        return AsyncStream(self, frames, Reconnects(reconnect_s))

    @asynccontextmanager
    async def shared_memory(self, slot_bytes: int, *, slots: int = 4) -> AsyncIterator[SharedMemory]:
        """Memory that a server on this machine shares; see `Client.shared_memory`."""
        service = self.calls.services["shared_memory"]
        region = await self.call(service.CreateSharedMemory, create_request(slot_bytes, slots))
        memory = None
        try:
            memory = await asyncio.to_thread(SharedMemory, region, slots)
            yield memory
        finally:
            if memory is not None:
                memory.close()
            with suppress(OVPError):  # a server that is gone has none
                gone = shared_memory_service_pb2.DeleteSharedMemoryRequest(region=region.region)
                await self.call(service.DeleteSharedMemory, gone)

    @property
    def vocabularies(self) -> AsyncVocabularies:
        """The vocabularies that the server keeps by name."""
        return AsyncVocabularies(self.calls)

    async def scene(self, image: Source) -> AsyncRemoteScene:
        """An image to ask one question about: it is sent with each, and the server keeps nothing."""
        return AsyncRemoteScene(self.calls, self.questions, RemoteImage(await self._picture(image)))

    async def encode(self, image: Source) -> AsyncRemoteScene:
        """Encode an image once, to ask many questions about it."""
        remote = RemoteImage(await self._picture(image))
        await self.calls.run(self.questions.encode(remote))
        return AsyncRemoteScene(self.calls, self.questions, remote)

    async def server_info(self) -> ServerInfo:
        """What the server serves, and its limits."""
        return await self.calls.run(server_info())

    async def models(self) -> tuple[ModelCard, ...]:
        """The models the server has loaded; the first is its default."""
        return await self.calls.run(models())

    @property
    def last_reply(self) -> Reply | None:
        """What came with the latest answer, whichever task asked."""
        return self.calls.last_reply

    @property
    def last_timing(self) -> Mapping[str, float]:
        """Milliseconds of the latest answer, by stage; ``round_trip`` as measured here."""
        return self.last_reply.timing if self.last_reply else {}

    async def close(self) -> None:
        """End the connection; calls under way are cancelled."""
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def call(self, method: Callable[..., Any], request: object) -> Any:
        """Call any method of the service, and again where that may help and there is time.

        Raises:
            OVPError: Of the class that the server raised.
        """
        return await self.calls.call(method, request)

    async def fitting(self, image: Source) -> tuple[image_pb2.Image, Size | None]:
        """An image as a stream sends it, and the size that answers are brought to, if it is sent smaller."""
        picture = await self._picture(image)
        return await asyncio.to_thread(fit, picture, await self.calls.run(self.questions.most_pixels()))

    async def _picture(self, image: Source) -> image_pb2.Image:
        return await asyncio.to_thread(self.pictures.message, image)
