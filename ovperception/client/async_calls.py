"""Carries what a client asks over its connection, for asyncio; the words of `Calls`, awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc

from ovperception.client.connection import Connection, closed
from ovperception.client.dialogue import Dialogue
from ovperception.client.replies import Reply, read_reply
from ovperception.client.retries import Retries
from ovperception.client.services import stubs
from ovperception.errors import OVPError
from ovperception.v1 import perceive_pb2

__all__ = ["AsyncCalls"]

T = TypeVar("T")


class AsyncCalls:
    """Makes the calls of one client.

    Args:
        connection: Its settings.
        channel: Its channel.
    """

    def __init__(self, connection: Connection, channel: grpc.aio.Channel) -> None:
        self._connection = connection
        self._channel = channel
        self._retries = Retries()
        self.services = stubs(channel)
        self.last_reply: Reply | None = None

    async def run(self, dialogue: Dialogue[T]) -> T:
        """Carry a dialogue to its end, and remember what the last reply told of itself.

        Raises:
            OVPError: Of the class that the server raised.
        """
        try:
            ask = next(dialogue)
            while True:
                started = time.perf_counter()
                try:
                    reply = await self.call(getattr(self.services[ask.service], ask.method), ask.request)
                except OVPError as error:
                    ask = dialogue.throw(error)
                    continue
                if hasattr(reply, "info"):
                    self.last_reply = read_reply(reply.info, 1e3 * (time.perf_counter() - started))
                ask = dialogue.send(reply)
        except StopIteration as end:
            answer: T = end.value
            return answer

    async def call(self, method: Callable[..., Any], request: object) -> Any:
        """Call any method of the service, and again where that may help and there is time.

        Raises:
            OVPError: Of the class that the server raised.
        """
        tries = self._retries.tries(self._connection.timeout_s)
        while True:
            try:
                reply = await method(request, timeout=tries.timeout_s(), metadata=self._connection.metadata)
            except grpc.aio.AioRpcError as error:
                ours = self.explain(error)
            except grpc.aio.UsageError:
                raise closed() from None
            else:
                tries.success()
                return reply
            await asyncio.sleep(tries.delay_s(ours))

    def open_stream(self, requests: AsyncIterator[perceive_pb2.StreamPerceiveRequest]) -> Any:
        """A call that carries a stream."""
        return self.services["perception"].StreamPerceive(requests, metadata=self._connection.metadata)

    def explain(self, error: grpc.aio.AioRpcError) -> OVPError:
        """The error a call ended with, as ours."""
        connected = self._channel.get_state() == grpc.ChannelConnectivity.READY
        return self._connection.explain(error, connected=connected)
