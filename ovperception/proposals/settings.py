"""Checks that the settings of every proposer share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    S = TypeVar("S", bound=DataclassInstance)

__all__ = ["check_counts", "check_overlap", "read_settings"]


def check_overlap(name: str, value: object) -> None:
    """Refuse an overlap that is none.

    Raises:
        InvalidParameter: not a number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidParameter(
            f"{name} is out of range", field=f"proposer.{name}", expected="a number from 0 to 1", got=value
        )


def check_counts(**counts: object) -> None:
    """Refuse counts of nothing.

    Raises:
        InvalidParameter: one is no whole number of at least 1.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidParameter(
                f"{name} is out of range", field=f"proposer.{name}", expected="1 or more", got=value
            )


def read_settings(kind: type[S], settings: Mapping[str, Any]) -> S:
    """Settings from plain JSON types, in which tuples are lists.

    Raises:
        InvalidParameter: an unknown setting, or one out of its range.
    """
    known = tuple(f.name for f in fields(kind))
    if unknown := sorted(set(settings) - set(known)):
        raise InvalidParameter(
            "Unknown settings of a proposer",
            field="proposer",
            expected=", ".join(known),
            got=", ".join(unknown),
        )
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
