"""Carries what a client asks over its connection, for threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from ovperception.client.connection import Connection, closed
from ovperception.client.dialogue import Dialogue
from ovperception.client.replies import Reply, read_reply
from ovperception.client.retries import Retries
from ovperception.client.services import stubs
from ovperception.errors import OVPError
from ovperception.v1 import perceive_pb2

__all__ = ["Calls"]

R = TypeVar("R")
T = TypeVar("T")


class Calls:
    """Makes the calls of one client.

    Args:
        connection: Its settings.
        channel: Its channel.
    """

    def __init__(self, connection: Connection, channel: grpc.Channel) -> None:
        self._connection = connection
        self._channel = channel
        self._retries = Retries()
        self._last = threading.local()
        self.services = stubs(channel)

    @property
    def last_reply(self) -> Reply | None:
        """What came with the last answer in this thread."""
        return getattr(self._last, "reply", None)

    def run(self, dialogue: Dialogue[T]) -> T:
        """Carry a dialogue to its end, and remember what the last reply told of itself.

        Raises:
            OVPError: Of the class that the server raised.
        """
        try:
            ask = next(dialogue)
            while True:
                started = time.perf_counter()
                try:
                    reply = self.call(getattr(self.services[ask.service], ask.method), ask.request)
                except OVPError as error:
                    ask = dialogue.throw(error)
                    continue
                if hasattr(reply, "info"):
                    self._last.reply = read_reply(reply.info, 1e3 * (time.perf_counter() - started))
                ask = dialogue.send(reply)
        except StopIteration as end:
            answer: T = end.value
            return answer

    def call(self, method: Callable[..., R], request: object) -> R:
        """Call any method of the service, and again where that may help and there is time.

        Raises:
            OVPError: Of the class that the server raised.
        """
        tries = self._retries.tries(self._connection.timeout_s)
        while True:
            try:
                reply = method(request, timeout=tries.timeout_s(), metadata=self._connection.metadata)
            except grpc.RpcError as error:
                ours = self.explain(error)
            except ValueError as error:
                if "closed channel" not in str(error):
                    raise
                raise closed() from None
            else:
                tries.success()
                return reply
            time.sleep(tries.delay_s(ours))

    def open_stream(self, requests: Iterator[perceive_pb2.StreamPerceiveRequest]) -> Any:
        """A call that carries a stream."""
        return self.services["perception"].StreamPerceive(requests, metadata=self._connection.metadata)

    # `Any`: grpc has no public type for a failed call.
    def explain(self, error: Any) -> OVPError:
        """The error a call ended with, as ours."""
        late = error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        return self._connection.explain(error, connected=not late or self._is_connected())

    def _is_connected(self) -> bool:
        try:
            grpc.channel_ready_future(self._channel).result(timeout=0.1)
        except grpc.FutureTimeoutError:
            return False
        return True
