"""The table of classes that sorts and filters, and their curves in a form that a small script can draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.outcome import Curve, Outcome
from eval.reporting.names import group_name
from eval.reporting.numbers import COUNTS, meaning, written

__all__ = ["Cell", "ClassTable", "class_table", "packed_curves"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number: for reading, for sorting, and 0-100 for the bar behind it (None: no bar)."""

    shown: str
    order: float
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One class."""

    name: str
    groups: tuple[str, ...]
    cells: tuple[Cell, ...]
    curve: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTable:
    """Columns with what they mean, the groups one can filter by, and the rows, the best class first."""

    columns: tuple[tuple[str, str], ...]
    groups: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def has_empty(self) -> bool:
        """Whether some classes have the leading number and some have not."""
        return len({bool(row.cells and row.cells[0].shown) for row in self.rows}) > 1


def class_table(outcome: Outcome) -> ClassTable:
    """All classes that were judged."""
    columns = list(dict.fromkeys(name for row in outcome.per_class for name in row.values))
    curves = {curve.class_id: i for i, curve in enumerate(_of_classes(outcome.curves))}
    rows = [
        Row(
            name=row.name,
            groups=tuple(group_name(group) for group in row.groups),
            cells=tuple(_cell(column, row.values.get(column)) for column in columns),
            curve=curves.get(row.id),
        )
        for row in outcome.per_class
    ]
    if columns:
        rows.sort(key=lambda row: -row.cells[0].order)
    return ClassTable(
        columns=tuple((column, meaning(column)) for column in columns),
        groups=tuple(dict.fromkeys(group for row in rows for group in row.groups)),
        rows=tuple(rows),
    )


def _cell(column: str, value: float | None) -> Cell:
    quality = column not in COUNTS
    return Cell(
        shown="" if value is None else written(column, value),
        order=-1.0 if value is None else value,
        share=100 * value if quality and value is not None else None,
    )


def _of_classes(curves: Sequence[Curve]) -> list[Curve]:
    """One curve a class: the one of the lowest IoU."""
    found: dict[int, Curve] = {}
    for curve in curves:
        if curve.class_id is None:
            continue
        known = found.get(curve.class_id)
        if known is None or (curve.iou or 1.0) < (known.iou or 1.0):
            found[curve.class_id] = curve
    return list(found.values())


def packed_curves(curves: Sequence[Curve]) -> list[dict[str, str]]:
    """Name and precision of each class's curve, two hexadecimal digits a point, 00 to c8 for 0 to 1.

    A thousand classes take 250 kB so, where plain numbers take a megabyte.
    """
    return [
        {
            "name": f"{curve.name}, IoU {curve.iou:.2f}" if curve.iou else f"{curve.name}, mean of IoU",
            "points": "".join(f"{round(200 * min(max(p, 0.0), 1.0)):02x}" for p in curve.precision),
        }
        for curve in _of_classes(curves)
    ]
