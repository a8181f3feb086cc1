"""The client for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ovperception.client.calls import Calls
from ovperception.client.connection import TLS, Connection
from ovperception.client.dialogue import models, server_info
from ovperception.client.frames import Frames, Policy
from ovperception.client.handles import Words
from ovperception.client.perceptions import MaskEncoding, Output, Perception, output_messages
from ovperception.client.pictures import Pictures, Transport
from ovperception.client.questions import Questions
from ovperception.client.remote_image import RemoteImage
from ovperception.client.remote_scene import RemoteScene
from ovperception.client.replies import ModelCard, Reply, ServerInfo
from ovperception.client.retries import Reconnects
from ovperception.client.scaling import Size, fit
from ovperception.client.shared_memory import SharedMemory, create_request
from ovperception.client.stream import Stream
from ovperception.client.vocabularies import Vocabularies
from ovperception.errors import OVPError
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import image_pb2, shared_memory_service_pb2

if TYPE_CHECKING:
    from ovperception.client.pictures import Source

__all__ = ["Client"]

R = TypeVar("R")
T = TypeVar("T")


class Client:
    """Asks a server what `ovperception.Scene` answers locally, with the same results and the same errors.

        with Client("robot:50051") as client:
            detections = client.detect("street.jpg", ["taxi", "traffic light|stoplight"])
            with client.encode("street.jpg") as scene:  # encode once, ask many
                scene.detect(["taxi"]); scene.panoptic(["road", "sky", "car"])

    Safe to use from several threads. Images are whatever `ovperception.Model.encode` takes.

    What is wrong with a question raises what it raises in `ovperception.Scene`. Besides, each may raise
    `Unavailable` (no server there, or not now), `DeadlineExceeded` (no answer within `timeout_s`),
    `ResourceExhausted` (no room), `Unauthenticated` or `PermissionDenied`. Where another try may help there
    is one, within `timeout_s`.

    Args:
        address: ``host:port``, or ``unix:PATH``.
        model: Name of the model to ask; empty means the server's first.
        timeout_s: Seconds that a call may take in all, with all its tries.
        transport: How pixels go: ``raw``, ``png``, ``jpeg`` (lossy), or ``auto``, which is lossless.
        max_message_bytes: Largest request or reply.
        max_pixels: Larger pictures are sent smaller, and answers brought back to their size; None does so
            only with those that the server refuses for their size.
        mask_encoding: How masks travel; they arrive as run lengths whichever it is.
        tls: Whom to trust and how to be known; True trusts whom this machine trusts; None means no TLS.
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
        self._channel = self.connection.channel()
        self.calls = Calls(self.connection, self._channel)

    def detect(
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
        """The objects of an image that `words` name; see `ovperception.Scene.detect`.

        Args:
            image: A path, the bytes of a JPEG, PNG or WebP file, an (H, W, 3) uint8 RGB array, or a picture
                in `shared_memory`.
            words: One string a class, ``a|b`` for synonyms; a `Vocabulary`; or one the server keeps.
            boxes: (N, 4) xyxy pixels of the presented image, to be named instead of looked for.
            score_threshold: Least score, 0-1; None means the model's own, here and below.
            max_detections: Most objects returned.
            nms_iou_threshold: Of two objects of one class that overlap more, 0-1, the worse is dropped.
            masks: Whether to return masks as well, where the model makes them.

        Returns:
            Boxes, xyxy pixels of the presented image, with scores, classes and masks.
        """
        return self.scene(image).detect(
            words,
            boxes=boxes,
            score_threshold=score_threshold,
            max_detections=max_detections,
            nms_iou_threshold=nms_iou_threshold,
            masks=masks,
        )

    def semantic(
        self,
        image: Source,
        words: Words,
        *,
        score_threshold: float | None = None,
        scores: bool = False,
    ) -> SemanticMap:
        """A class per pixel; see `RemoteScene.semantic`."""
        return self.scene(image).semantic(words, score_threshold=score_threshold, scores=scores)

    def panoptic(
        self,
        image: Source,
        words: Words,
        *,
        score_threshold: float | None = None,
    ) -> PanopticMap:
        """A segment per pixel; see `ovperception.Scene.panoptic`."""
        return self.scene(image).panoptic(words, score_threshold=score_threshold)

    def heatmap(self, image: Source, text: str) -> NDArray[np.float32]:
        """(H, W): how well each pixel fits `text`; see `ovperception.Scene.heatmap`."""
        return self.scene(image).heatmap(text)

    def embed_regions(self, image: Source, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, D): one vector per (N, 4) xyxy box; see `ovperception.Scene.embed_regions`."""
        return self.scene(image).embed_regions(boxes)

    def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(T, D) vectors of unit length; see `ovperception.Model.embed_text`."""
        return self.calls.run(self.questions.embed_text(texts))

    def embed_image(self, image: Source) -> NDArray[np.float32]:
        """(D,) vector of a whole image; see `ovperception.Model.embed_image`."""
        return self.calls.run(self.questions.embed_image(RemoteImage(self.pictures.message(image))))

    def perceive(
        self,
        images: Sequence[Source],
        words: Words | None = None,
        *,
        outputs: Sequence[Output] = ("detect",),
    ) -> list[Perception | OVPError]:
        """Several outputs of each of several images, each in one pass through the backbone.

        Args:
            images: The images; together they must fit into a message.
            words: The classes; None where no output needs any.
            outputs: What to be told about each image: names, or `Detect`, `Semantic`, `Panoptic`, `Heatmap`.

        Returns:
            One for each image, in order: the answers, or the error of an image that failed.
        """
        pictures = [self.pictures.message(image) for image in images]
        return self.calls.run(self.questions.perceive(pictures, words, outputs))

    def stream(
        self,
        words: Words | None = None,
        *,
        outputs: Sequence[Output] = ("detect",),
        policy: Policy = "drop_oldest",
        max_in_flight: int = 4,
        frame_timeout_s: float | None = None,
        reconnect_s: float = 30.0,
    ) -> Stream:
        """Ask the same about frame after frame; see `Stream`.

        Args:
            words: The classes; None where no output needs any.
            outputs: What to be told about each frame.
            policy: What happens to frames that come faster than they are answered: ``drop_oldest`` for
                cameras, ``drop_newest``, or ``block`` for files.
            max_in_flight: Frames that may be without an answer.
            frame_timeout_s: After which time a frame is not worth an answer.
            reconnect_s: How long to go on connecting to a server that is gone.
        """
        frames = Frames(
            self.questions.handles,
            words,
            output_messages(outputs),
            model=self.model,
            policy=policy,
            max_in_flight=max_in_flight,
            frame_timeout_s=frame_timeout_s,
        )
        return Stream(self, frames, Reconnects(reconnect_s))

    @contextmanager
    def shared_memory(self, slot_bytes: int, *, slots: int = 4) -> Iterator[SharedMemory]:
        """Memory that a server on this machine shares, for pictures that are then not sent.

        Args:
            slot_bytes: Of the largest picture: height * width * 3.
            slots: Pictures that lie there at once.

        Raises:
            Unsupported: This client is not connected by ``unix:PATH``.
            ResourceExhausted: The server has no room for it.
        """
        service = self.calls.services["shared_memory"]
        region = self.call(service.CreateSharedMemory, create_request(slot_bytes, slots))
        memory = None
        try:
            memory = SharedMemory(region, slots)
            yield memory
        finally:
            if memory is not None:
                memory.close()
            with suppress(OVPError):  # a server that is gone has none
                gone = shared_memory_service_pb2.DeleteSharedMemoryRequest(region=region.region)
                self.call(service.DeleteSharedMemory, gone)

    @property
    def vocabularies(self) -> Vocabularies:
        """The vocabularies that the server keeps by name."""
        return Vocabularies(self.calls)

    def scene(self, image: Source) -> RemoteScene:
        """An image to ask one question about: it is sent with each, and the server keeps nothing."""
        return RemoteScene(self.calls, self.questions, RemoteImage(self.pictures.message(image)))

    def encode(self, image: Source) -> RemoteScene:
        """Encode an image once, to ask many questions about it."""
        remote = RemoteImage(self.pictures.message(image))
        self.calls.run(self.questions.encode(remote))
        return RemoteScene(self.calls, self.questions, remote)

    def server_info(self) -> ServerInfo:
        """What the server serves, and its limits."""
        return self.calls.run(server_info())

    def models(self) -> tuple[ModelCard, ...]:
        """The models the server has loaded; the first is its default."""
        return self.calls.run(models())

    @property
    def last_reply(self) -> Reply | None:
        """What came with the last answer in this thread."""
        return self.calls.last_reply

    @property
    def last_timing(self) -> Mapping[str, float]:
        """Milliseconds of the last answer in this thread, by stage; ``round_trip`` as measured here."""
        return self.last_reply.timing if self.last_reply else {}

    def close(self) -> None:
        """End the connection; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, method: Callable[..., R], request: object) -> R:
        """Call any method of the service, and again where that may help and there is time.

        Raises:
            OVPError: Of the class that the server raised.
        """
        return self.calls.call(method, request)

    def fitting(self, image: Source) -> tuple[image_pb2.Image, Size | None]:
        """An image as a stream sends it, and the size that answers are brought to, if it is sent smaller."""
        picture = self.pictures.message(image)
        return fit(picture, self.calls.run(self.questions.most_pixels()))
