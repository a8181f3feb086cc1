"""Records of a JSON list turned into arrays, each field checked once for all.

A list of a million records is read field by field; only if that fails is it walked again, to say which record
it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidDataset

__all__ = [
    "box_column",
    "checked_boxes",
    "checked_integers",
    "checked_numbers",
    "integer_column",
    "number_column",
    "records",
]

Record = Mapping[str, Any]
Records = Sequence[Record]


def records(value: object, what: str) -> Records:
    """The list itself, if it is one of objects.

    Raises:
        InvalidDataset: it is something else.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidDataset(f"The {what} are not a list", field=what, got=type(value).__name__)
    if set(map(type, value)) <= {dict}:  # a check each would take as long as all the rest
        return value
    for index, row in enumerate(value):
        if not isinstance(row, Mapping):
            raise InvalidDataset("This is not an object", field=f"{what}[{index}]", got=row)
    return value


def _values(rows: Sequence[Record], name: str, what: str) -> list[Any]:
    try:
        return [row[name] for row in rows]
    except KeyError:
        index = next(i for i, row in enumerate(rows) if name not in row)
        raise InvalidDataset(
            f'This has no "{name}"', field=f"{what}[{index}]", got=dict(rows[index])
        ) from None


def _array(values: list[Any], name: str, what: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):  # rows of several lengths, or an integer beyond 64 bits
        array = np.asarray(0, dtype=object)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or bool in set(map(type, values)):
        index = next((i for i, value in enumerate(values) if not _is_number(value)), 0)
        raise InvalidDataset(
            f"This {name} is not a number", field=f"{what}[{index}].{name}", got=repr(values[index])
        )
    return array


def number_column(rows: Sequence[Record], name: str, what: str) -> NDArray[np.float64]:
    """(N,) a finite number of each record.

    Args:
        rows: the records.
        name: of the field.
        what: the list is called in messages, such as "results".

    Raises:
        InvalidDataset: a record has no such number, or it is NaN or infinite.
    """
    if not rows:
        return np.zeros(0)
    values = _values(rows, name, what)
    return checked_numbers(_array(values, name, what).astype(np.float64, copy=False), name, what)


def checked_numbers(column: NDArray[np.float64], name: str, what: str) -> NDArray[np.float64]:
    """The column itself, (N,) or (N, M), if it is finite.

    Raises:
        InvalidDataset: a number is NaN or infinite.
    """
    finite = np.isfinite(column) if column.ndim == 1 else np.isfinite(column).all(axis=1)
    if not finite.all():
        index = int(np.argmin(finite))
        raise InvalidDataset(
            f"This {name} is not finite",
            field=f"{what}[{index}].{name}",
            expected="a finite number",
            got=column[index].tolist(),
            mend="NaN has no order: every number made with it would be arbitrary.",
        )
    return column


def integer_column(rows: Sequence[Record], name: str, what: str) -> NDArray[np.int64]:
    """(N,) a whole number of each record, such as an id; 3.0 is taken for 3.

    Raises:
        InvalidDataset: a record has no such number.
    """
    if not rows:
        return np.zeros(0, np.int64)
    return checked_integers(_array(_values(rows, name, what), name, what), name, what)


def checked_integers(column: NDArray[Any], name: str, what: str) -> NDArray[np.int64]:
    """(N,) the column as integers.

    Raises:
        InvalidDataset: a number is not whole.
    """
    if column.dtype.kind == "f":
        whole = column == np.floor(column)  # false for NaN
        if not (whole & (np.abs(column) < 2**53)).all():
            index = int(np.argmin(whole))
            raise InvalidDataset(
                f"This {name} is not a whole number", field=f"{what}[{index}].{name}", got=column[index]
            )
    return column.astype(np.int64, copy=False)


def box_column(rows: Sequence[Record], what: str) -> NDArray[np.float64]:
    """(N, 4) x, y, width, height of each record's "bbox".

    Raises:
        InvalidDataset: a record has no such box, or one of its numbers is not finite, or a side is negative.
    """
    if not rows:
        return np.zeros((0, 4))
    values = _values(rows, "bbox", what)
    try:
        fits = set(map(len, values)) == {4}
        # NumPy would read text as a number.
        fits = fits and not set(map(type, chain.from_iterable(values))) & {str, bytes, bool}
        column = np.fromiter(chain.from_iterable(values), np.float64).reshape(-1, 4) if fits else None
    except (TypeError, ValueError):
        column = None
    if column is None:
        index = next(i for i, box in enumerate(values) if not _is_box(box))
        raise InvalidDataset(
            "This is not a box",
            field=f"{what}[{index}].bbox",
            expected="[x, y, width, height] in pixels",
            got=values[index],
        )
    return checked_boxes(column, what)


def checked_boxes(column: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    """The column itself, (N, 4) x, y, width, height.

    Raises:
        InvalidDataset: a number is not finite, or a side is negative.
    """
    checked_numbers(column, "bbox", what)
    negative = (column[:, 2:] < 0).any(axis=1)
    if negative.any():
        index = int(np.argmax(negative))
        raise InvalidDataset(
            "This box has a negative side",
            field=f"{what}[{index}].bbox",
            expected="[x, y, width, height] in pixels",
            got=column[index].tolist(),
            mend="Boxes given by two corners have to be turned into x, y, width, height.",
        )
    return column


def _is_box(box: object) -> bool:
    return isinstance(box, Sequence) and len(box) == 4 and all(map(_is_number, box))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
