"""What a stream has said and has no answer to: threads and asyncio carry it, each in their way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ovperception.client import scaling
from ovperception.client.handles import Handles, NamedWords, StoredVocabulary, Words, as_words
from ovperception.client.numbers import at_least_one, duration
from ovperception.client.perceptions import Perception, read_failure, read_perception
from ovperception.errors import InvalidParameter, OVPError, Unavailable, VocabularyNotFound
from ovperception.v1 import image_pb2
from ovperception.v1 import perceive_pb2 as pb
from ovperception.vocabulary import Vocabulary

__all__ = ["Frames", "Policy", "StreamReply"]

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


@dataclass(slots=True, kw_only=True)
class _Unanswered:
    request: pb.StreamPerceiveRequest
    words: Vocabulary | StoredVocabulary | None = None  # of an update; None of a frame
    size: scaling.Size | None = None  # of a frame that was sent smaller
    sent_s: float


class Frames:
    """The frames of one stream. Not thread-safe: its owner sees to that.

    Args:
        handles: The client's: which words the server keeps.
        words: What is asked with; None where no output needs any.
        outputs: What is asked about each frame.
        model: Whom.
        policy: What happens to frames that come too fast.
        max_in_flight: Frames that may be without an answer.
        frame_timeout_s: After which time a frame is not worth an answer.

    Raises:
        InvalidParameter, InvalidVocabulary: One of them cannot be.
    """

    def __init__(
        self,
        handles: Handles,
        words: Words | None,
        outputs: Sequence[pb.PerceiveOutput],
        *,
        model: str,
        policy: Policy,
        max_in_flight: int,
        frame_timeout_s: float | None,
    ) -> None:
        if policy not in _POLICIES:
            known = " or ".join(_POLICIES)
            raise InvalidParameter("No such policy", field="policy", expected=known, got=policy)
        credit = at_least_one(max_in_flight, "max_in_flight")
        self._handles = handles
        self._words = None if words is None else as_words(words)  # of the oldest frame without a reply
        self._config = pb.StreamConfig(
            model=model,
            outputs=outputs,
            overload_policy=pb.OverloadPolicy.Name(_POLICIES[policy]),
            max_in_flight=credit,
        )
        if frame_timeout_s is not None:
            self._config.frame_timeout.CopyFrom(duration(frame_timeout_s, "frame_timeout_s"))
        self._credit = credit
        self._blocks = policy == "block"
        self._sequence = 0
        self._unanswered: deque[_Unanswered] = deque()  # replies come in this order
        self.unsent: deque[pb.StreamPerceiveRequest] = deque()
        self._accepted = False
        self._named: NamedWords | None = None  # the configuration's words

    @property
    def waiting(self) -> bool:
        """Whether something has no answer yet."""
        return bool(self._unanswered)

    @property
    def has_room(self) -> bool:
        """Whether another frame may be sent now."""
        frames = sum(entry.words is None for entry in self._unanswered)
        return len(self.unsent) < _MOST_UNSENT and not (self._blocks and frames >= self._credit)

    def send(self, picture: image_pb2.Image, size: scaling.Size | None = None) -> int:
        """Put a frame among what is to be sent.

        Args:
            picture: The picture.
            size: (height, width) that answers are brought to, if the picture is sent smaller.

        Returns:
            Its number.
        """
        self._sequence += 1
        frame = pb.StreamFrame(sequence=self._sequence, image=picture)
        self._put(_Unanswered(request=pb.StreamPerceiveRequest(frame=frame), size=size, sent_s=_now()))
        return self._sequence

    def change(self, words: Words) -> int:
        """Put other words among what is to be sent; the number of the first frame they are for."""
        given = as_words(words)
        spec = self._handles.name(given, in_full=True).spec
        sequence = self._sequence + 1
        update = pb.StreamUpdate(from_sequence=sequence, vocabulary=spec)
        request = pb.StreamPerceiveRequest(update=update)
        self._put(_Unanswered(request=request, words=given, sent_s=_now()))
        return sequence

    def begin(self) -> tuple[pb.StreamPerceiveRequest, deque[pb.StreamPerceiveRequest]]:
        """For a new connection: its first message, and what to send then, which goes on being filled."""
        config = pb.StreamConfig()
        config.CopyFrom(self._config)
        if self._words is not None:
            self._named = self._handles.name(self._words)
            config.vocabulary.CopyFrom(self._named.spec)
        self._accepted = False
        self.unsent = deque(entry.request for entry in self._unanswered)
        return pb.StreamPerceiveRequest(config=config), self.unsent

    def forgotten(self, error: OVPError) -> bool:
        """Whether a connection ended because the server has forgotten the words, which then go in full."""
        if self._named is None or not (isinstance(error, VocabularyNotFound) and self._named.by_handle):
            return False
        self._handles.forget(self._named.key)
        return True

    def take(self, message: pb.StreamPerceiveResponse) -> StreamReply | None:
        """The reply of a frame; None for that of the configuration or of a change.

        Raises:
            Unavailable: The server will not answer the oldest frame; another, or a later one, may.
            OVPError: A change of words has failed.
        """
        if not self._accepted:
            self._accepted = True
            self._credit = message.accepted.max_in_flight
            if self._named is not None:
                self._handles.learn(self._named.key, message.accepted.vocabulary.handle)
            return None
        failure = read_failure(message.error) if message.WhichOneof("message") == "error" else None
        if isinstance(failure, Unavailable):
            raise failure
        entry = self._unanswered.popleft()
        if entry.words is None:
            return _reply(entry, message, failure)
        if failure is not None:
            raise failure
        self._words = entry.words
        return None

    def _put(self, entry: _Unanswered) -> None:
        self._unanswered.append(entry)
        self.unsent.append(entry.request)


def _reply(entry: _Unanswered, message: pb.StreamPerceiveResponse, failure: OVPError | None) -> StreamReply:
    sequence = message.sequence
    if failure is not None:
        return StreamReply(sequence=sequence, error=failure)
    if message.WhichOneof("message") == "dropped":
        reason = pb.DropReason.Name(message.dropped.reason).removeprefix("DROP_REASON_").lower()
        return StreamReply(sequence=sequence, dropped=reason)
    found = read_perception(message.result, 1e3 * (_now() - entry.sent_s))
    if entry.size is not None:
        found = found.restored(entry.size)
    return StreamReply(sequence=sequence, perception=found)


def _now() -> float:
    return time.perf_counter()
