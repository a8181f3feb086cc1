"""What a request may ask of post-processing."""

from __future__ import annotations

import math

from ovperception.errors import InvalidParameter
from ovperception.vocabulary import Vocabulary

__all__ = ["check_classes", "check_count", "check_unit"]


def check_unit(**values: float) -> None:
    """Raise `InvalidParameter` for the first value, called by its name, that is not from 0 to 1."""
    for name, value in values.items():
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise InvalidParameter(f"{name} is out of range", field=name, expected="0 to 1", got=value)


def check_count(name: str, value: int) -> None:
    """Raise `InvalidParameter` if a number of results is negative."""
    if value < 0:
        raise InvalidParameter(f"{name} is negative", field=name, expected="0 or more", got=value)


def check_classes(found: int, vocabulary: Vocabulary) -> None:
    """Raise `InvalidParameter` if scores were made with another number of classes."""
    if found != len(vocabulary):
        raise InvalidParameter(
            "The scores are of other words than the vocabulary",
            field="vocabulary",
            expected=f"{found} classes",
            got=f"{len(vocabulary)} classes",
        )
