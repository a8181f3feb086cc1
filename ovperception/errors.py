"""What can go wrong, in words a user can act on.

Every error the project raises on purpose derives from `OVPError` and carries the gRPC status that the
server answers with. A message says what was wrong, what was expected, what was got, and how to mend it.

    OVPError                          INTERNAL
    ├── InvalidInput                  INVALID_ARGUMENT     (also a ValueError)
    │   ├── InvalidImage                                   undecodable, truncated, too large, wrong channels
    │   ├── InvalidVocabulary                              empty, too long, not strings, unknown template
    │   ├── InvalidParameter                               thresholds, counts, sizes, options
    │   ├── InvalidRegions                                 boxes or masks of a wrong shape or frame
    │   └── InvalidDataset                                 annotation files, dataset folders
    ├── NotFound                      NOT_FOUND            (also a LookupError)
    │   ├── UnknownModel
    │   ├── UnknownHead
    │   ├── UnknownImage                                   an image_id the server does not keep (any more)
    │   ├── UnknownRegion                                  shared memory that was given up
    │   ├── UnknownVocabulary
    │   │   └── VocabularyNotFound                         a handle that was never given out or has expired
    │   └── MissingFile                                    (also a FileNotFoundError)
    ├── Unsupported                   UNIMPLEMENTED        a task, backbone family or format not covered
    ├── InvalidCheckpoint             FAILED_PRECONDITION  missing, extra or misshaped keys; not a checkpoint
    ├── MissingDependency             FAILED_PRECONDITION  an extra that is not installed
    ├── Unauthenticated               UNAUTHENTICATED      no token or certificate, or one that is not known
    ├── PermissionDenied              PERMISSION_DENIED    a known caller who may not do this
    ├── AlreadyExists                 ALREADY_EXISTS       something of this name is there
    ├── Conflict                      ABORTED              changed by somebody else since it was read
    ├── Diverged                      INTERNAL             a training whose numbers are not finite
    ├── ResourceExhausted             RESOURCE_EXHAUSTED   queue full, out of memory, disk full
    ├── DeadlineExceeded              DEADLINE_EXCEEDED
    └── Unavailable                   UNAVAILABLE          server not reachable, draining, port in use
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AlreadyExists",
    "Conflict",
    "DeadlineExceeded",
    "Diverged",
    "InvalidCheckpoint",
    "InvalidDataset",
    "InvalidImage",
    "InvalidInput",
    "InvalidParameter",
    "InvalidRegions",
    "InvalidVocabulary",
    "MissingDependency",
    "MissingFile",
    "NotFound",
    "OVPError",
    "PermissionDenied",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "UnknownHead",
    "UnknownImage",
    "UnknownModel",
    "UnknownRegion",
    "UnknownVocabulary",
    "Unsupported",
    "VocabularyNotFound",
]


class OVPError(Exception):
    """Base of every error raised on purpose.

    Args:
        what: What is wrong, one sentence.
        field: Path of the offending field as a request spells it, such as ``vocabulary.classes[3]``.
        expected: What would have been accepted.
        got: What was found instead, shortened to 200 characters.
        mend: What the caller can do about it.

    Attributes:
        grpc_status: Name of the gRPC status code this error is answered with.
        exit_code: Exit status of the command line; 2 means "you can mend it by asking differently".
        retry_after_ms: After how long a second try is worth it, where the one who raised it can tell; else 0.
    """

    grpc_status: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = 1
    retry_after_ms: int = 0

    def __init__(
        self, what: str, *, field: str = "", expected: str = "", got: object = None, mend: str = ""
    ) -> None:
        self.what = what.rstrip(".")
        self.field = field
        self.expected = expected
        self.got = "" if got is None else _shorten(str(got))
        self.mend = mend
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The whole message: what, expected, got, how to mend it."""
        parts = [f"{self.what}."]
        if self.expected:
            parts.append(f"Expected {self.expected}.")
        if self.got:
            parts.append(f"Got {self.got}.")
        if self.mend:
            parts.append(self.mend if self.mend.endswith(".") else f"{self.mend}.")
        return " ".join(parts)

    @property
    def reason(self) -> str:
        """Machine-readable reason: the class name in UPPER_SNAKE_CASE, such as ``INVALID_IMAGE``."""
        name = type(self).__name__
        return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the named parts when crossing a process border."""
        state = {"what": self.what, "field": self.field, "expected": self.expected, "got": self.got}
        return _rebuild, (type(self), state | {"mend": self.mend}, self.retry_after_ms)


def _rebuild(cls: type[OVPError], parts: dict[str, str], retry_after_ms: int = 0) -> OVPError:
    error = cls(parts["what"], field=parts["field"], expected=parts["expected"], mend=parts["mend"])
    error.got = parts["got"]
    error.retry_after_ms = retry_after_ms
    error.args = (error.message,)
    return error


def _shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class InvalidInput(OVPError, ValueError):
    """The request itself is wrong."""

    grpc_status = "INVALID_ARGUMENT"
    exit_code = 2


class InvalidImage(InvalidInput):
    """The image cannot be decoded, is too large, or has a shape or type that is no picture."""


class InvalidVocabulary(InvalidInput):
    """The words are empty, too many, too long, not text, or name an unknown template set."""


class InvalidParameter(InvalidInput):
    """A threshold, count, size or option is out of its range."""


class InvalidRegions(InvalidInput):
    """Boxes or masks have a wrong shape, order, or frame."""


class InvalidDataset(InvalidInput):
    """An annotation file or dataset folder does not hold what it should."""


class NotFound(OVPError, LookupError):
    """Something was named that is not there."""

    grpc_status = "NOT_FOUND"
    exit_code = 2


class UnknownModel(NotFound):
    """No model of this name is built in, in the catalogue, loaded, or a file."""


class UnknownHead(NotFound):
    """No installed package provides a head of this name."""


class UnknownImage(NotFound):
    """The image handle was never given out, or what it named was dropped to make room."""


class UnknownRegion(NotFound):
    """The region of shared memory was never made, or was given up."""


class UnknownVocabulary(NotFound):
    """No vocabulary of this name is built in or kept by the server."""


class VocabularyNotFound(UnknownVocabulary):
    """The handle of a kept vocabulary was never given out, has expired, or was dropped to make room."""


class MissingFile(NotFound, FileNotFoundError):
    """A path does not exist or is not a file."""


class Unsupported(OVPError):
    """The task, backbone family or format is not covered."""

    grpc_status = "UNIMPLEMENTED"
    exit_code = 2


class InvalidCheckpoint(OVPError):
    """A weight file has missing, unexpected or misshaped entries, or is no weight file."""

    grpc_status = "FAILED_PRECONDITION"
    exit_code = 2


class MissingDependency(OVPError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    grpc_status = "FAILED_PRECONDITION"
    exit_code = 2


class Unauthenticated(OVPError):
    """The caller brought no token or certificate, or one that is not known."""

    grpc_status = "UNAUTHENTICATED"
    exit_code = 2


class PermissionDenied(OVPError):
    """The caller is known and may not do this."""

    grpc_status = "PERMISSION_DENIED"
    exit_code = 2


class Diverged(OVPError):
    """The losses or gradients of a training are not finite, too often to go on."""


class ResourceExhausted(OVPError):
    """No room: the queue, memory or disk is full. Trying again later may help."""

    grpc_status = "RESOURCE_EXHAUSTED"


class AlreadyExists(OVPError):
    """Something of this name is there already."""

    grpc_status = "ALREADY_EXISTS"
    exit_code = 2


class Conflict(OVPError):
    """What was to be changed is not what it was when the caller last saw it."""

    grpc_status = "ABORTED"


class DeadlineExceeded(OVPError):
    """The answer could not be given in the time the caller allowed."""

    grpc_status = "DEADLINE_EXCEEDED"


class Unavailable(OVPError):
    """The server cannot be reached, is draining, or cannot have the port it was given."""

    grpc_status = "UNAVAILABLE"
