"""The numbers of parts of the truth: sizes, frequencies, base and novel words, things and stuff."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from eval.outcome import Breakdown, Outcome
from eval.reporting.bar_chart import Bar, bar_chart
from eval.reporting.names import group_name
from eval.reporting.numbers import COUNTS, is_time, meaning, written
from eval.reporting.svg import HALF_WIDTH

__all__ = ["BreakdownView", "breakdown_views"]

_TITLES = {
    "words": "Base and novel words",
    "size": "Size of the objects",
    "frequency": "Frequency in training",
    "kind": "Things and stuff",
}
_LOOKS: dict[str, Literal["base", "novel"]] = {"base": "base", "novel": "novel"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakdownView:
    """A chart of the leading column, and a table of all."""

    title: str
    leading: str
    chart: Markup
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def breakdown_views(outcome: Outcome) -> tuple[BreakdownView, ...]:
    """Base and novel words first, where they are told apart."""
    order = list(_TITLES)
    known = sorted(
        (b for b in outcome.breakdowns if any(b.rows.values())),
        key=lambda b: order.index(b.name) if b.name in order else len(order),
    )
    return tuple(_view(breakdown) for breakdown in known)


def _view(breakdown: Breakdown) -> BreakdownView:
    columns = list(dict.fromkeys(name for row in breakdown.rows.values() for name in row))
    qualities = [name for name in columns if name not in COUNTS and not is_time(name)]
    title = _TITLES.get(breakdown.name, breakdown.name)
    bars = [
        Bar(
            label=f"{group_name(part)} {column}" if len(qualities) > 1 else group_name(part),
            value=None if (value := row.get(column)) is None else 100 * value,
            look=_LOOKS.get(part, "plain"),
        )
        for column in qualities[:3]
        for part, row in breakdown.rows.items()
    ]
    return BreakdownView(
        title=title,
        leading=qualities[0] if qualities else "",
        chart=bar_chart(title, bars, width=HALF_WIDTH) if bars else Markup(""),
        columns=tuple((name, meaning(name)) for name in columns),
        rows=tuple(
            (group_name(part), tuple(written(name, row.get(name)) for name in columns))
            for part, row in breakdown.rows.items()
        ),
    )
