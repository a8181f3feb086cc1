"""Horizontal bars, one a row: numbers of groups, and our number beside published ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from eval.reporting.svg import WIDTH, chart, element, text, ticks

__all__ = ["Bar", "bar_chart"]

_RIGHT = 64.0
_ROW, _TOP, _AXIS = 24.0, 6.0, 22.0
_LETTERS, _LETTER = 36, 6.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row.

    Attributes:
        label: what it is of.
        value: in the unit of the chart; None draws no bar and says n/a.
        look: style of the bar; "published" is hatched, so that it is told apart without colour.
        low: end of an interval around the value.
        high: its other end.
        note: told when pointed at.
    """

    label: str
    value: float | None
    look: Literal["ours", "published", "base", "novel", "plain"] = "plain"
    low: float | None = None
    high: float | None = None
    note: str = ""


def bar_chart(
    title: str,
    bars: Sequence[Bar],
    *,
    unit: str = "%",
    digits: int = 1,
    most: float | None = None,
    width: float = WIDTH,
) -> Markup:
    """The bars under each other, from zero.

    Args:
        title: what is shown; not drawn, but read aloud.
        bars: from top to bottom.
        unit: behind the numbers.
        digits: behind the point.
        most: end of the axis; by default the longest bar's.
        width: of the chart.
    """
    values = [v for bar in bars for v in (bar.value, bar.high) if v is not None]
    marks = ticks(most if most is not None else max(values, default=1.0))
    labels = 18 + _LETTER * min(_LETTERS, max((len(bar.label) for bar in bars), default=0))
    span = width - labels - _RIGHT
    bottom = _TOP + _ROW * len(bars)

    def at(value: float) -> float:
        return labels + span * min(max(value / marks[-1], 0.0), 1.0)

    grid = [
        element("line", x1=at(m), x2=at(m), y1=_TOP, y2=bottom, class_="grid")
        + text(f"{m:g}", at(m), bottom + 15, anchor="middle", class_="axis")
        for m in marks
    ]
    rows = [_row(bar, _TOP + _ROW * i, at, unit, digits) for i, bar in enumerate(bars)]
    told = "; ".join(f"{bar.label} {_number(bar.value, unit, digits)}" for bar in bars[:40])
    return chart(title, told, width, bottom + _AXIS, *grid, *rows)


def _row(bar: Bar, top: float, at: Callable[[float], float], unit: str, digits: int) -> Markup:
    middle = top + _ROW / 2
    number = _number(bar.value, unit, digits)
    parts = [
        element("title", f"{bar.label}: {number}" + (f". {bar.note}" if bar.note else "")),
        text(bar.label, at(0.0) - 10, middle + 4, anchor="end", most=_LETTERS, class_=f"label {bar.look}"),
    ]
    end = at(0.0)
    if bar.value is not None:
        end = at(bar.value)
        width = max(end - at(0.0), 1.0)
        parts.append(
            element("rect", x=at(0.0), y=top + 4, width=width, height=_ROW - 8, class_=f"bar {bar.look}")
        )
    if bar.low is not None and bar.high is not None:
        parts.append(element("line", x1=at(bar.low), x2=at(bar.high), y1=middle, y2=middle, class_="whisker"))
        end = max(end, at(bar.high))
    parts.append(text(number, end + 6, middle + 4, class_=f"value {bar.look}"))
    return element("g", *parts)


def _number(value: float | None, unit: str, digits: int) -> str:
    if value is None:
        return "n/a"
    return f"{value:.{digits}f}{'' if unit == '%' else ' ' + unit if unit else ''}"
