"""The connection to a server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import grpc
import numpy as np
from grpc_status import rpc_status
from numpy.typing import ArrayLike, NDArray

from ovperception.client.pictures import Transport, check_transport, picture_message
from ovperception.client.remote_scene import RemoteScene
from ovperception.client.replies import ModelCard, Reply, ServerInfo, read_model, read_reply, read_server_info
from ovperception.errors import (
    DeadlineExceeded,
    InvalidParameter,
    OVPError,
    ResourceExhausted,
    Unavailable,
    Unsupported,
)
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import image_pb2, model_service_pb2, results_pb2
from ovperception.v1 import perception_service_pb2 as pb
from ovperception.v1.model_service_pb2_grpc import ModelServiceStub
from ovperception.v1.perception_service_pb2_grpc import PerceptionServiceStub
from ovperception.vocabulary import Vocabulary
from ovperception.wire import read_embeddings
from ovperception.wire_errors import error_of

if TYPE_CHECKING:
    from ovperception.images import ImageSource

__all__ = ["Client"]

# Only what never reached a model is tried again, and only while most calls succeed.
_RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}


class _Reply(Protocol):
    @property
    def info(self) -> results_pb2.ResultInfo: ...


A = TypeVar("A", bound=_Reply)
R = TypeVar("R")


class Client:
    """Asks a server what `ovperception.Scene` answers locally, with the same results and the same errors.

        with Client("robot:50051") as client:
            detections = client.detect("street.jpg", ["taxi", "traffic light|stoplight"])
            with client.encode("street.jpg") as scene:  # encode once, ask many
                scene.detect(["taxi"]); scene.panoptic(["road", "sky", "car"])

    Safe to use from several threads. Images are whatever `ovperception.Model.encode` takes.

    Args:
        address: ``host:port``, or ``unix:PATH``.
        model: Name of the model to ask; empty means the server's first.
        timeout_s: How long a call may take in all.
        transport: How pixels go: ``raw``, ``png``, ``jpeg`` (lossy), or ``auto``, which is lossless.
        max_message_bytes: Largest request or reply.

    Raises:
        InvalidParameter: `address`, `timeout_s` or `transport` cannot be.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str | None = None,
        timeout_s: float = 30.0,
        transport: Transport = "auto",
        max_message_bytes: int = 32 * 2**20,
    ) -> None:
        _check_address(address)
        check_transport(transport)
        if not timeout_s > 0:
            raise InvalidParameter(
                "The timeout is no time", field="timeout_s", expected="more than 0", got=timeout_s
            )
        self.address = address
        self.model = model or ""
        self._timeout_s = timeout_s
        self._transport = transport
        self._max_message_bytes = max_message_bytes
        self._local = _is_local(address)
        self._channel = grpc.insecure_channel(address, options=self._options())
        self.perception = PerceptionServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)
        self._last = threading.local()

    def detect(
        self,
        image: ImageSource,
        words: Sequence[str] | Vocabulary,
        *,
        boxes: ArrayLike | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        nms_iou_threshold: float | None = None,
        masks: bool = True,
    ) -> Detections:
        """The objects of an image that `words` name; see `ovperception.Scene.detect`."""
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
        image: ImageSource,
        words: Sequence[str] | Vocabulary,
        *,
        score_threshold: float | None = None,
        scores: bool = False,
    ) -> SemanticMap:
        """A class per pixel; see `RemoteScene.semantic`."""
        return self.scene(image).semantic(words, score_threshold=score_threshold, scores=scores)

    def panoptic(
        self,
        image: ImageSource,
        words: Sequence[str] | Vocabulary,
        *,
        score_threshold: float | None = None,
    ) -> PanopticMap:
        """A segment per pixel; see `ovperception.Scene.panoptic`."""
        return self.scene(image).panoptic(words, score_threshold=score_threshold)

    def heatmap(self, image: ImageSource, text: str) -> NDArray[np.float32]:
        """(H, W): how well each pixel fits `text`; see `ovperception.Scene.heatmap`."""
        return self.scene(image).heatmap(text)

    def embed_regions(self, image: ImageSource, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, D): one vector per (N, 4) xyxy box; see `ovperception.Scene.embed_regions`."""
        return self.scene(image).embed_regions(boxes)

    def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(T, D) vectors of unit length; see `ovperception.Model.embed_text`."""
        request = pb.EmbedTextRequest(model=self.model, texts=texts)
        return read_embeddings(self.ask(self.perception.EmbedText, request).embeddings)

    def embed_image(self, image: ImageSource) -> NDArray[np.float32]:
        """(D,) vector of a whole image; see `ovperception.Model.embed_image`."""
        request = pb.EmbedImageRequest(model=self.model, image=self._picture(image))
        (vector,) = read_embeddings(self.ask(self.perception.EmbedImage, request).embedding)
        return np.asarray(vector, np.float32)

    def scene(self, image: ImageSource) -> RemoteScene:
        """An image to ask one question about: it is sent with each, and the server keeps nothing."""
        return RemoteScene(self, self._picture(image))

    def encode(self, image: ImageSource) -> RemoteScene:
        """Encode an image once, to ask many questions about it."""
        picture = self._picture(image)
        request = pb.EncodeImageRequest(model=self.model, image=picture)
        info = self.ask(self.perception.EncodeImage, request).info.image
        return RemoteScene(self, picture, image_id=info.image_id, size=(info.height, info.width))

    def server_info(self) -> ServerInfo:
        """What the server serves, and its limits."""
        return read_server_info(self.call(self.perception.GetServerInfo, pb.GetServerInfoRequest()))

    def models(self) -> tuple[ModelCard, ...]:
        """The models the server has loaded; the first is its default."""
        reply = self.call(self._models.ListModels, model_service_pb2.ListModelsRequest())
        return tuple(map(read_model, reply.models))

    @property
    def last_reply(self) -> Reply | None:
        """What came with the last answer in this thread."""
        return getattr(self._last, "reply", None)

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

    def ask(self, method: Callable[..., A], request: object) -> A:
        """Call a method of the service whose reply tells about itself, and remember what it told.

        Raises:
            OVPError: Of the class that the server raised.
        """
        started = time.perf_counter()
        reply = self.call(method, request)
        self._last.reply = read_reply(reply.info, 1e3 * (time.perf_counter() - started))
        return reply

    def call(self, method: Callable[..., R], request: object) -> R:
        """Call any method of the service.

        Raises:
            OVPError: Of the class that the server raised.
        """
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._explain(error) from None
        except ValueError as error:
            if "closed channel" not in str(error):
                raise
            raise Unavailable("This client was closed", mend="Make a new one") from None

    def _picture(self, image: ImageSource) -> image_pb2.Image:
        limit = self._max_message_bytes
        return picture_message(image, self._transport, local=self._local, max_bytes=limit)

    def _options(self) -> list[tuple[str, Any]]:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", self._max_message_bytes),
            ("grpc.max_send_message_length", self._max_message_bytes),
            ("grpc.service_config", json.dumps(_RETRIES)),
        ]
        if self._local:
            options.append(("grpc.enable_http_proxy", 0))
        return options

    def _explain(self, error: Any) -> OVPError:
        """The error a call ended with, as ours."""
        status = rpc_status.from_call(error)
        if status is not None and (ours := error_of(status)) is not None:
            return ours
        code, details = error.code(), error.details() or ""
        if code == grpc.StatusCode.UNAVAILABLE:
            return self._unreachable(details)
        if code == grpc.StatusCode.CANCELLED:
            what = "The call was ended by the server, or by closing this client"
            return Unavailable(what, got=details, mend="Try again")
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            if not self._connected():
                return self._unreachable(f"nothing for {self._timeout_s:g} s")
            return DeadlineExceeded(
                f"The server did not answer within {self._timeout_s:g} s", mend="Allow more with timeout_s"
            )
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            return ResourceExhausted(
                "The message is larger than the client or the server allows",
                got=details,
                mend="Send a smaller image, or one encoded as JPEG or PNG",
            )
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return Unsupported(f"The server at {self.address} has no such method", got=details)
        return OVPError(f"The call failed with {code.name}", got=details)

    def _unreachable(self, got: str) -> Unavailable:
        return Unavailable(
            f"The server at {self.address} cannot be reached",
            got=got,
            mend="Check the address, and that `ovp serve` runs there",
        )

    def _connected(self) -> bool:
        try:
            grpc.channel_ready_future(self._channel).result(timeout=0.1)
        except grpc.FutureTimeoutError:
            return False
        return True


def _check_address(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if address.startswith("unix:") or (host and colon and port.isdigit() and int(port) <= 65535):
        return
    raise InvalidParameter("No such address", field="address", expected="HOST:PORT or unix:PATH", got=address)


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return address.startswith("unix:") or host in {"localhost", "::1"} or host.startswith("127.")
