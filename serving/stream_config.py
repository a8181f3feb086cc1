"""What is agreed when a stream begins, and what its frames are asked until an update says otherwise."""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import dataclass

from ovperception.errors import InvalidParameter, ResourceExhausted
from ovperception.v1 import perceive_pb2 as pb
from serving.perceiving import Asked, Perceiver

__all__ = ["StreamQuestions", "StreamTerms", "stream_terms"]

_DEFAULT_IN_FLIGHT = 4
_MOST_CHANGES = 16
_Policy = pb.OverloadPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTerms:
    """What is agreed when a stream begins.

    Attributes:
        request_id: Of the stream; a frame's has its sequence behind.
        policy: What happens to frames that there is no room for.
        most: Frames that may be in work.
        frame_timeout_s: How long a frame is of use; None for ever.
    """

    request_id: str
    policy: int
    most: int
    frame_timeout_s: float | None


def stream_terms(config: pb.StreamConfig, max_in_flight: int) -> StreamTerms:
    """The terms of a stream whose frames in work are `max_in_flight` at most.

    Raises:
        InvalidParameter: They cannot be.
    """
    timeout_s = config.frame_timeout.seconds + config.frame_timeout.nanos / 1e9
    if config.HasField("frame_timeout") and timeout_s <= 0:
        raise InvalidParameter("A frame gets no time", field="config.frame_timeout", got=timeout_s)
    return StreamTerms(
        request_id=config.request_id or uuid.uuid4().hex,
        policy=_policy(config.overload_policy),
        most=min(config.max_in_flight or _DEFAULT_IN_FLIGHT, max_in_flight),
        frame_timeout_s=timeout_s if config.HasField("frame_timeout") else None,
    )


class StreamQuestions:
    """What the frames of one stream are asked; used by the thread that reads it.

    Args:
        perceiver: Checks what is asked.
        config: What they are asked at first.
        owner: Whose words are meant.

    Raises:
        OVPError: It cannot be asked.
    """

    def __init__(self, perceiver: Perceiver, config: pb.StreamConfig, owner: str) -> None:
        self._perceiver = perceiver
        self._owner = owner
        self._model = config.model
        self._vocabulary, self._outputs = config.vocabulary, list(config.outputs)
        self.asked = perceiver.asked(self._model, self._vocabulary, self._outputs, owner)
        self._changes: deque[tuple[int, Asked]] = deque()  # meant for frames that have not come yet

    def of_frame(self, sequence: int) -> Asked:
        """What the frame of this number is asked; none before it will come any more."""
        while self._changes and self._changes[0][0] <= sequence:
            self.asked = self._changes.popleft()[1]
        return self.asked

    def change(self, update: pb.StreamUpdate, last: int) -> Asked:
        """Ask something else from a frame on; `last` is the number of the last that has come.

        Raises:
            OVPError: That frame is past, or it cannot be asked; all goes on as it was.
        """
        self._check_place(update.from_sequence, last)
        vocabulary = update.vocabulary if update.HasField("vocabulary") else self._vocabulary
        outputs = list(update.outputs) or self._outputs
        asked = self._perceiver.asked(self._model, vocabulary, outputs, self._owner)
        self._vocabulary, self._outputs = vocabulary, outputs
        self._changes.append((update.from_sequence, asked))
        return asked

    def _check_place(self, sequence: int, last: int) -> None:
        if sequence <= last:
            raise InvalidParameter(
                "The update is meant for a frame that has come already",
                field="update.from_sequence",
                expected=f"more than {last}",
                got=sequence,
            )
        if len(self._changes) >= _MOST_CHANGES:
            raise ResourceExhausted(
                "Too many updates wait for their frames",
                field="update",
                expected=f"at most {_MOST_CHANGES}",
                mend="Send frames, or fewer updates",
            )
        if self._changes and sequence < self._changes[-1][0]:
            raise InvalidParameter(
                "The update comes after one for later frames",
                field="update.from_sequence",
                expected=f"at least {self._changes[-1][0]}",
                got=sequence,
            )


def _policy(given: int) -> int:
    if given == _Policy.OVERLOAD_POLICY_UNSPECIFIED:
        return _Policy.OVERLOAD_POLICY_DROP_OLDEST
    if given not in _Policy.values():
        raise InvalidParameter(
            "No such policy",
            field="config.overload_policy",
            expected=" or ".join(_Policy.keys()[1:]),
            got=given,
        )
    return given
