"""A stream of frames, which comes back by itself when the connection is lost."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import grpc

from ovperception.client.perceptions import Perception, read_failure, read_perception
from ovperception.errors import InvalidParameter, OVPError, Unavailable, VocabularyNotFound
from ovperception.v1 import perceive_pb2 as pb
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovperception.client.client import Client
    from ovperception.images import ImageSource

__all__ = ["Policy", "Stream", "StreamReply"]

Policy = Literal["drop_oldest", "drop_newest", "block"]
_POLICIES = {
    "drop_oldest": pb.OVERLOAD_POLICY_DROP_OLDEST,
    "drop_newest": pb.OVERLOAD_POLICY_DROP_NEWEST,
    "block": pb.OVERLOAD_POLICY_BLOCK,
}
# Beyond what gRPC has taken; a sender who is faster than the network waits.
_MOST_UNSENT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReply:
    """What became of one frame: one of the last three.

    Attributes:
        sequence: Its number, as `Stream.send` gave it.
        perception: The answers.
        error: Why there are none.
        dropped: Why it was left out: ``newer_frame``, ``no_room`` or ``too_late``.
    """

    sequence: int
    perception: Perception | None = None
    error: OVPError | None = None
    dropped: str = ""


@dataclass(slots=True)
class _Unanswered:
    request: pb.StreamPerceiveRequest
    words: Vocabulary | None  # of an update; None of a frame
    sent_s: float


class Stream:
    """Frames in, one reply for each out, in order. Made by `Client.stream`.

        with client.stream(["cup", "person"]) as stream:
            for reply in stream.run(camera):  # or stream.send(frame) in one thread, next(stream) in another
                if reply.perception: show(reply.perception.detections)

    When the connection is lost, it is made again, and the frames without a reply are sent again, with the
    words of their time. Safe to send from one thread and to read from another.
    """

    def __init__(
        self,
        client: Client,
        words: Sequence[str] | Vocabulary | None,
        outputs: list[pb.PerceiveOutput],
        *,
        policy: Policy,
        max_in_flight: int,
        frame_timeout_s: float | None,
    ) -> None:
        if policy not in _POLICIES:
            raise InvalidParameter(
                "No such policy", field="policy", expected=" or ".join(_POLICIES), got=policy
            )
        if max_in_flight < 1:
            raise InvalidParameter(
                "Some frame must be in flight",
                field="max_in_flight",
                expected="at least 1",
                got=max_in_flight,
            )
        self._client = client
        self._words = _vocabulary(words)  # of the oldest frame without a reply
        self._config = pb.StreamConfig(
            model=client.model,
            outputs=outputs,
            overload_policy=pb.OverloadPolicy.Name(_POLICIES[policy]),
            max_in_flight=max_in_flight,
        )
        if frame_timeout_s is not None:
            self._config.frame_timeout.FromNanoseconds(int(1e9 * frame_timeout_s))
        self._credit = max_in_flight
        self._blocks = policy == "block"
        self._sequence = 0
        self._unanswered: deque[_Unanswered] = deque()  # replies come in this order
        self._unsent: deque[pb.StreamPerceiveRequest] = deque()
        self._change = threading.Condition()
        self._ended = self._closed = self._accepted = False
        self._tries = 0
        self._key, self._by_handle = "", False  # of the configuration's words
        self._call: Any = None  # grpc has no public type for it
        self._connect()

    def send(self, image: ImageSource) -> int:
        """Send a frame, waiting for credit (``block``) or for the network.

        Returns:
            Its sequence number.

        Raises:
            Unavailable: The stream has ended.
        """
        picture = self._client.picture(image)
        with self._change:
            self._change.wait_for(self._has_room)
            self._check_open()
            self._sequence += 1
            frame = pb.StreamFrame(sequence=self._sequence, image=picture)
            self._put(pb.StreamPerceiveRequest(frame=frame), None)
            return self._sequence

    def set_words(self, words: Sequence[str] | Vocabulary) -> int:
        """Ask with other words from the next frame on.

        Returns:
            The number of that frame.

        Raises:
            InvalidVocabulary: They are no words.
        """
        vocabulary = _vocabulary(words)
        assert vocabulary is not None
        spec = self._client.questions.handles.spec(vocabulary, in_full=True)[0]
        with self._change:
            self._check_open()
            sequence = self._sequence + 1
            update = pb.StreamUpdate(from_sequence=sequence, vocabulary=spec)
            self._put(pb.StreamPerceiveRequest(update=update), vocabulary)
            return sequence

    def end(self) -> None:
        """Send no more; replies still come."""
        with self._change:
            self._ended = True
            self._change.notify_all()

    def run(self, images: Iterable[ImageSource]) -> Iterator[StreamReply]:
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
                if self._closed or (self._ended and not self._unanswered):
                    raise
                self._again(Unavailable("The server has ended the stream"))
                continue
            except grpc.RpcError as error:
                if self._closed:
                    raise StopIteration from None
                self._again(self._client.explain(error))
                continue
            self._tries = 0
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

    def _has_room(self) -> bool:
        if self._closed or self._ended:
            return True
        frames = sum(entry.words is None for entry in self._unanswered)
        return len(self._unsent) < _MOST_UNSENT and not (self._blocks and frames >= self._credit)

    def _check_open(self) -> None:
        if self._closed or self._ended:
            raise Unavailable("This stream has ended", mend="Open another one")

    def _put(self, request: pb.StreamPerceiveRequest, words: Vocabulary | None) -> None:
        self._unanswered.append(_Unanswered(request, words, time.perf_counter()))
        self._unsent.append(request)
        self._change.notify_all()

    def _connect(self) -> None:
        """Begin (again) with what has no reply."""
        spec = None
        if self._words is not None:
            spec, self._key = self._client.questions.handles.spec(self._words)
        with self._change:
            self._accepted = False
            self._unsent = deque(entry.request for entry in self._unanswered)
            config = pb.StreamConfig()
            config.CopyFrom(self._config)
            if spec is not None:
                config.vocabulary.CopyFrom(spec)
            self._by_handle = spec is not None and spec.WhichOneof("value") == "name"
            self._change.notify_all()
        requests = self._requests(config, self._unsent)
        self._call = self._client.perception.StreamPerceive(
            requests, metadata=self._client.connection.metadata
        )

    def _requests(
        self, config: pb.StreamConfig, unsent: deque[pb.StreamPerceiveRequest]
    ) -> Iterator[pb.StreamPerceiveRequest]:
        """What gRPC sends, in a thread of its own; `unsent` tells one connection from the next."""
        yield pb.StreamPerceiveRequest(config=config)
        while True:
            with self._change:
                self._change.wait_for(
                    lambda: unsent or self._ended or self._closed or unsent is not self._unsent
                )
                if unsent is not self._unsent or self._closed or not unsent:
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
        if isinstance(error, VocabularyNotFound) and self._by_handle:
            self._client.questions.handles.forget(self._key)
            self._connect()
            return
        self._tries += 1
        wait_s = self._client.retries.delay_s(error, self._tries, self._client.connection.timeout_s)
        if wait_s is None:
            self.close()
            raise error
        with self._change:
            self._change.wait_for(lambda: self._closed, wait_s)
        self._connect()

    def _take(self, message: pb.StreamPerceiveResponse) -> StreamReply | None:
        """The reply of a frame; None for that of the configuration or of an update."""
        kind, sequence = message.WhichOneof("message"), message.sequence
        if not self._accepted:
            self._accepted = True
            with self._change:
                self._credit = message.accepted.max_in_flight
                self._change.notify_all()
            self._client.questions.handles.learn(self._key, message.accepted.vocabulary.handle)
            return None
        with self._change:
            entry = self._unanswered.popleft()
            if entry.words is not None and kind == "accepted":
                self._words = entry.words
            self._change.notify_all()
        if entry.words is not None:
            if kind == "error":
                raise read_failure(message.error)
            return None
        spent_ms = 1e3 * (time.perf_counter() - entry.sent_s)
        if kind == "result":
            self._client.retries.success()
            return StreamReply(sequence=sequence, perception=read_perception(message.result, spent_ms))
        if kind == "dropped":
            reason = pb.DropReason.Name(message.dropped.reason).removeprefix("DROP_REASON_").lower()
            return StreamReply(sequence=sequence, dropped=reason)
        return StreamReply(sequence=sequence, error=read_failure(message.error))


def _vocabulary(words: Sequence[str] | Vocabulary | None) -> Vocabulary | None:
    if words is None or isinstance(words, Vocabulary):
        return words
    return Vocabulary.from_words(words)
