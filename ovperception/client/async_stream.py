"""A stream of frames for asyncio, which comes back by itself when the connection is lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from ovperception.client.frames import Frames, StreamReply
from ovperception.client.handles import Words
from ovperception.client.retries import Reconnects
from ovperception.errors import OVPError, Unavailable
from ovperception.v1 import perceive_pb2 as pb

if TYPE_CHECKING:
    from ovperception.client.async_client import AsyncClient
    from ovperception.client.pictures import Source

__all__ = ["AsyncStream"]

_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined] # its type stubs forget it


class AsyncStream:
    """Frames in, one reply for each out, in order; `Stream` for asyncio. Made by `AsyncClient.stream`.

        async with client.stream(["cup", "person"]) as stream:
            async for reply in stream.run(camera):  # or stream.send in one task, anext(stream) in another
                if reply.perception: show(reply.perception.detections)

    It comes back as `Stream` does.
    """

    def __init__(self, client: AsyncClient, frames: Frames, reconnects: Reconnects) -> None:
        self._client = client
        self._frames = frames
        self._reconnects = reconnects
        self._change = asyncio.Condition()
        self._ended = self._closed = False
        self._call: Any = None  # grpc has no public type for it

    async def send(self, image: Source) -> int:
        """Send a frame, waiting for credit (``block``) or for the network.

        Returns:
            Its sequence number.

        Raises:
            Unavailable: The stream has ended.
        """
        self._check_open()
        picture, size = await self._client.fitting(image)
        async with self._change:
            await self._change.wait_for(lambda: self._closed or self._ended or self._frames.has_room)
            self._check_open()
            sequence = self._frames.send(picture, size)
            self._begin()
            self._change.notify_all()
            return sequence

    async def set_words(self, words: Words) -> int:
        """Ask with other words from the next frame on.

        Returns:
            The number of that frame.

        Raises:
            InvalidVocabulary: They are no words.
        """
        async with self._change:
            self._check_open()
            sequence = self._frames.change(words)
            self._change.notify_all()
            return sequence

    async def end(self) -> None:
        """Send no more; replies still come."""
        async with self._change:
            self._ended = True
            self._change.notify_all()

    async def run(self, images: Iterable[Source] | AsyncIterable[Source]) -> AsyncIterator[StreamReply]:
        """Send images from a task of its own, and give their replies."""
        sending = asyncio.create_task(self._send_all(images))
        try:
            async for reply in self:
                yield reply
            await sending
        finally:
            sending.cancel()

    async def _send_all(self, images: Iterable[Source] | AsyncIterable[Source]) -> None:
        try:
            if isinstance(images, AsyncIterable):
                async for image in images:
                    await self.send(image)
            else:
                for image in images:
                    await self.send(image)
        except Unavailable:  # the stream was closed
            if not self._closed:
                raise
        finally:
            await self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamReply:
        """The next reply.

        Raises:
            OVPError: The stream has failed for good.
        """
        while True:
            if self._closed:
                raise StopAsyncIteration
            self._begin()
            try:
                message = await self._call.read()
            except grpc.aio.AioRpcError as error:
                if self._closed:
                    raise StopAsyncIteration from None
                await self._again(self._client.calls.explain(error))
                continue
            except asyncio.CancelledError:
                if self._closed and not _task_is_cancelled():
                    raise StopAsyncIteration from None
                raise
            if message is _EOF:
                if self._ended and not self._frames.waiting:
                    raise StopAsyncIteration
                await self._again(Unavailable("The server has ended the stream"))
                continue
            reply = await self._take(message)
            if reply is not None:
                return reply

    async def close(self) -> None:
        """End it now; frames without a reply get none."""
        async with self._change:
            self._closed = True
            self._change.notify_all()
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _check_open(self) -> None:
        if self._closed or self._ended:
            raise Unavailable("This stream has ended", mend="Open another one")

    def _begin(self) -> None:
        """Connect with what has no reply, unless there is a connection."""
        if self._call is None:
            first, unsent = self._frames.begin()
            self._call = self._client.calls.open_stream(self._requests(first, unsent))

    async def _requests(
        self, first: pb.StreamPerceiveRequest, unsent: deque[pb.StreamPerceiveRequest]
    ) -> AsyncIterator[pb.StreamPerceiveRequest]:
        """What gRPC sends, in a task of its own; `unsent` tells one connection from the next."""
        yield first
        while True:
            async with self._change:
                await self._change.wait_for(
                    lambda: unsent or self._ended or self._closed or unsent is not self._frames.unsent
                )
                if unsent is not self._frames.unsent or self._closed or not unsent:
                    return
                request = unsent.popleft()
                self._change.notify_all()
            yield request

    async def _again(self, error: OVPError) -> None:
        """Have `_begin` connect again, if that may help.

        Raises:
            OVPError: `error`, if not.
        """
        self._call.cancel()
        if not self._frames.forgotten(error):
            wait_s = self._reconnects.delay_s(error)
            if wait_s is None:
                await self.close()
                raise error
            await asyncio.sleep(wait_s)
        self._call = None
        async with self._change:
            self._begin()
            self._change.notify_all()

    async def _take(self, message: pb.StreamPerceiveResponse) -> StreamReply | None:
        try:
            reply = self._frames.take(message)
        except Unavailable as error:
            await self._again(error)
            return None
        async with self._change:
            self._change.notify_all()
        if reply is not None:
            self._reconnects.success()
        return reply


def _task_is_cancelled() -> bool:
    """Whether somebody cancels the task that waits here, rather than the call it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
