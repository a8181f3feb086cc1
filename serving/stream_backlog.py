"""The frames of one stream that have no reply sent yet: taken in, worked on, replied to in order.

What is held is bounded: a reader who does not read makes frames wait, then be dropped, or, with BLOCK, not be
read. Dropped frames and updates get a reply too, and wait for it, so that a caller who sends and reads
nothing is not read for ever either.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from ovperception.errors import OVPError
from ovperception.v1 import perceive_pb2 as pb
from serving.perceiving import Asked

__all__ = ["Backlog", "Entry"]

_Policy = pb.OverloadPolicy


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """A frame or an update on its way.

    Attributes:
        sequence: Its number.
        request: A frame's message while its picture is in memory.
        nbytes: How large that came.
        asked: What a frame is asked.
        arrived_s: On `time.monotonic`'s clock.
        reply: Set when it has one.
    """

    sequence: int
    request: pb.StreamPerceiveRequest | None
    nbytes: int = 0
    asked: Asked | None = None
    arrived_s: float = field(default_factory=time.monotonic)
    reply: pb.StreamPerceiveResponse | None = None

    @property
    def is_held(self) -> bool:
        """Whether its picture or its answer is in memory."""
        has_result = self.reply is not None and self.reply.WhichOneof("message") == "result"
        return self.request is not None or has_result


class Backlog:
    """The entries of one stream. One thread puts, several work, one sends.

    Args:
        policy: What happens to frames that there is no room for.
        most: Frames that may be in work.
    """

    def __init__(self, *, policy: int, most: int) -> None:
        self._policy = policy
        self._most = most
        self._entries: deque[Entry] = deque()  # without a reply sent, by age
        self._waiting: deque[Entry] = deque()  # frames that nobody works on yet
        self._ended = False  # no more requests
        self._change = threading.Condition()
        self.stopped = False  # nobody reads replies any more
        self.broken: Exception | None = None  # why the stream ends in the middle

    def put_update(self, entry: Entry) -> None:
        """Take in an update that has its reply, when there is room for it."""
        with self._change:
            # Without a bound, a caller who sends nothing but updates would fill the memory.
            self._change.wait_for(lambda: self.stopped or len(self._entries) < 2 * self._most)
            if self.broken is not None:
                return
            self._entries.append(entry)
            self._change.notify_all()

    def put_frame(self, entry: Entry) -> None:
        """Take in a frame, when there is room for its reply; or drop it, or one before it."""
        with self._change:
            room = 4 * self._most
            self._change.wait_for(lambda: self.stopped or len(self._entries) < room)
            if self._policy == _Policy.OVERLOAD_POLICY_BLOCK:
                self._change.wait_for(lambda: self.stopped or self._held() < self._most)
            if self.stopped or self.broken is not None:
                return
            self._entries.append(entry)
            # One more than are in work, so that there is a newest one to go on with.
            newest = self._policy == _Policy.OVERLOAD_POLICY_DROP_OLDEST
            if self._held() <= self._most + newest:
                self._waiting.append(entry)
            elif newest and self._waiting:
                _drop(self._waiting.popleft(), pb.DROP_REASON_NEWER_FRAME)
                self._waiting.append(entry)
            else:
                _drop(entry, pb.DROP_REASON_NO_ROOM)
            self._change.notify_all()

    def end(self, error: OVPError | None = None) -> None:
        """No more requests come, because of `error` if there is one."""
        with self._change:
            self.broken = self.broken or error
            self._ended = True
            self._change.notify_all()

    def work(self) -> Entry | None:
        """Wait for the next frame to work on; None when there will be no more."""
        with self._change:
            self._change.wait_for(lambda: self.stopped or self._waiting or self._ended)
            return None if self.stopped or not self._waiting else self._waiting.popleft()

    def reply(self, entry: Entry, reply: pb.StreamPerceiveResponse) -> None:
        """A frame was worked on."""
        with self._change:
            entry.request, entry.reply = None, reply
            self._change.notify_all()

    def next_reply(self) -> pb.StreamPerceiveResponse | None:
        """Wait for the reply of the oldest; None when there will be no more."""
        with self._change:
            self._change.wait_for(self._can_send)
            if self.stopped or not self._entries:
                return None
            reply = self._entries.popleft().reply
            self._change.notify_all()
        return reply

    def stop(self) -> None:
        """Nobody reads replies any more."""
        with self._change:
            self.stopped = True
            self._change.notify_all()

    def break_off(self, error: OVPError, first: Entry | None = None) -> None:
        """End with an error instead of a reply to `first` and all after it; None: to all not in work yet."""
        with self._change:
            if first is None and self._waiting:
                first = self._waiting[0]
            self.broken = self.broken or error
            self._ended = True
            self._waiting.clear()
            while first is not None and first in self._entries:
                self._entries.pop()
            self._change.notify_all()

    def _can_send(self) -> bool:
        if self._entries:
            return self.stopped or self._entries[0].reply is not None
        return self.stopped or self._ended

    def _held(self) -> int:
        return sum(entry.is_held for entry in self._entries)


def _drop(entry: Entry, reason: pb.DropReason) -> None:
    entry.request = None
    dropped = pb.FrameDropped(reason=reason)
    entry.reply = pb.StreamPerceiveResponse(sequence=entry.sequence, dropped=dropped)
