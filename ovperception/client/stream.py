"""A stream of frames for threads, which comes back by itself when the connection is lost."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from ovperception.client.frames import Frames, StreamReply
from ovperception.client.handles import Words
from ovperception.client.retries import Reconnects
from ovperception.errors import OVPError, Unavailable
from ovperception.v1 import perceive_pb2 as pb

if TYPE_CHECKING:
    from ovperception.client.client import Client
    from ovperception.client.pictures import Source

__all__ = ["Stream"]


class Stream:
    """Frames in, one reply for each out, in order. Made by `Client.stream`.

        with client.stream(["cup", "person"]) as stream:
            for reply in stream.run(camera):  # or stream.send(frame) in one thread, next(stream) in another
                if reply.perception: show(reply.perception.detections)

    When the connection is lost, or the server ends, the stream is made again, and the frames without a reply
    are sent again, with the words of their time. Safe to send from one thread and to read from another.
    """

    def __init__(self, client: Client, frames: Frames, reconnects: Reconnects) -> None:
        self._client = client
        self._frames = frames
        self._reconnects = reconnects
        self._change = threading.Condition()
        self._ended = self._closed = False
        self._call: Any = None  # grpc has no public type for it
        self._connect()

    def send(self, image: Source) -> int:
        """Send a frame, waiting for credit (``block``) or for the network.

        Returns:
            Its sequence number.

        Raises:
            Unavailable: The stream has ended.
        """
        picture, size = self._client.fitting(image)
        with self._change:
            self._change.wait_for(lambda: self._closed or self._ended or self._frames.has_room)
            self._check_open()
            sequence = self._frames.send(picture, size)
            self._change.notify_all()
            return sequence

    def set_words(self, words: Words) -> int:
        """Ask with other words from the next frame on.

        Returns:
            The number of that frame.

        Raises:
            InvalidVocabulary: They are no words.
        """
        with self._change:
            self._check_open()
            sequence = self._frames.change(words)
            self._change.notify_all()
            return sequence

    def end(self) -> None:
        """Send no more; replies still come."""
        with self._change:
            self._ended = True
            self._change.notify_all()

    def run(self, images: Iterable[Source]) -> Iterator[StreamReply]:
        """Send images from a thread of its own, and give their replies."""
        failures: list[BaseException] = []

        def send() -> None:
            try:
                for image in images:
                    self.send(image)
            except Unavailable:  # the stream was closed
                return
            except BaseException as error:
                failures.append(error)
            finally:
                self.end()

        thread = threading.Thread(target=send, name="ovperception-send", daemon=True)
        thread.start()
        yield from self
        thread.join()
        if failures:
            raise failures[0]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamReply:
        """The next reply.

        Raises:
            OVPError: The stream has failed for good.
        """
        while True:
            try:
                message = next(self._call)
            except StopIteration:
                if self._closed or (self._ended and not self._frames.waiting):
                    raise
                self._again(Unavailable("The server has ended the stream"))
                continue
            except grpc.RpcError as error:
                if self._closed:
                    raise StopIteration from None
                self._again(self._client.calls.explain(error))
                continue
            reply = self._take(message)
            if reply is not None:
                return reply

    def close(self) -> None:
        """End it now; frames without a reply get none."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed or self._ended:
            raise Unavailable("This stream has ended", mend="Open another one")

    def _connect(self) -> None:
        """Begin (again) with what has no reply."""
        with self._change:
            first, unsent = self._frames.begin()
            self._change.notify_all()
        self._call = self._client.calls.open_stream(self._requests(first, unsent))

    def _requests(
        self, first: pb.StreamPerceiveRequest, unsent: deque[pb.StreamPerceiveRequest]
    ) -> Iterator[pb.StreamPerceiveRequest]:
        """What gRPC sends, in a thread of its own; `unsent` tells one connection from the next."""
        yield first
        while True:
            with self._change:
                self._change.wait_for(
                    lambda: unsent or self._ended or self._closed or unsent is not self._frames.unsent
                )
                if unsent is not self._frames.unsent or self._closed or not unsent:
                    return
                request = unsent.popleft()
                self._change.notify_all()
            yield request

    def _again(self, error: OVPError) -> None:
        """Connect again, if that may help.

        Raises:
            OVPError: `error`, if not.
        """
        self._call.cancel()
        if not self._frames.forgotten(error):
            wait_s = self._reconnects.delay_s(error)
            if wait_s is None:
                self.close()
                raise error
            with self._change:
                self._change.wait_for(lambda: self._closed, wait_s)
        self._connect()

    def _take(self, message: pb.StreamPerceiveResponse) -> StreamReply | None:
        try:
            with self._change:
                reply = self._frames.take(message)
                self._change.notify_all()
        except Unavailable as error:
            self._again(error)
            return None
        if reply is not None:
            self._reconnects.success()
        return reply
