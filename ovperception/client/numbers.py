"""Numbers as the wire carries them; whether they are in their range, the server says."""

from __future__ import annotations

import math

import numpy as np
from google.protobuf.duration_pb2 import Duration

from ovperception.errors import InvalidParameter

__all__ = ["at_least_one", "duration", "real", "whole"]

_INT32_MAX = 2**31 - 1
# 10,000 years of seconds, as protobuf has it.
_LONGEST_S = 315_576_000_000


def real(value: float | None, field: str) -> float | None:
    """A real number, or None.

    Raises:
        InvalidParameter: It is no number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InvalidParameter(f"{field} is no number", field=field, expected="a number", got=repr(value))
    return float(value)


def whole(value: int | None, field: str) -> int | None:
    """A whole number, or None; one beyond 32 bits becomes one that is out of range as well.

    Raises:
        InvalidParameter: It is no whole number.
    """
    number = real(value, field)
    if number is None:
        return None
    if math.isnan(number) or (math.isfinite(number) and number != int(number)):
        raise InvalidParameter(
            f"{field} is no whole number", field=field, expected="a whole number", got=repr(value)
        )
    return int(max(-1, min(number, _INT32_MAX)))


def at_least_one(value: int, field: str) -> int:
    """A count or a size.

    Raises:
        InvalidParameter: It is no whole number of 1 or more.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidParameter(
            f"{field} is out of range", field=field, expected="a whole number of at least 1", got=repr(value)
        )
    return int(value)


def duration(seconds: float, field: str) -> Duration:
    """A time.

    Raises:
        InvalidParameter: It is none.
    """
    number = real(seconds, field)
    if number is None or not 0 <= number <= _LONGEST_S:
        raise InvalidParameter(
            f"{field} is no time", field=field, expected="seconds, 0 or more", got=repr(seconds)
        )
    message = Duration()
    message.FromNanoseconds(int(1e9 * number))
    return message
