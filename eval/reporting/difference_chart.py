"""Differences around zero, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from eval.comparing import Change
from eval.reporting.svg import WIDTH, chart, element, text, ticks

__all__ = ["difference_chart"]

_RIGHT = 64.0
_ROW, _TOP, _AXIS = 22.0, 6.0, 22.0
_LETTERS, _LETTER = 32, 6.8
_LABEL_SHARE = 0.4


def difference_chart(title: str, rows: Sequence[Change], *, width: float = WIDTH) -> Markup:
    """A dot a row, in percentage points, right of zero where B is better; its interval as a line.

    Args:
        title: what is shown; not drawn, but read aloud.
        rows: from top to bottom; those without a difference are left out.
        width: of the chart.
    """
    known = [(row, 100 * row.difference) for row in rows if row.difference is not None]
    if not known:
        return Markup("")
    ends = [100 * end for row, _ in known for end in (row.low, row.high) if end is not None]
    reach = ticks(max(max(abs(v) for v in (*ends, *(d for _, d in known))), 0.1), 4)
    most = min(_LETTERS, int(_LABEL_SHARE * width / _LETTER))
    labels = 30 + _LETTER * min(most, max(len(row.name) for row, _ in known))
    middle, half = (labels + width - _RIGHT) / 2, (width - _RIGHT - labels) / 2
    bottom = _TOP + _ROW * len(known)

    def at(points: float) -> float:
        return middle + half * points / reach[-1]

    parts = []
    for mark in (*(-m for m in reversed(reach[1:])), *reach):
        look = "grid" if mark else "zero"
        parts.append(element("line", x1=at(mark), x2=at(mark), y1=_TOP, y2=bottom, class_=look))
        parts.append(
            text(f"{mark:+g}" if mark else "0", at(mark), bottom + 15, anchor="middle", class_="axis")
        )
    for i, (row, points) in enumerate(known):
        y = _TOP + _ROW * i + _ROW / 2
        look = ("ours" if points > 0 else "novel") if row.is_clear else "published"
        line = Markup("")
        told = f"{row.name}: {points:+.2f}"
        if row.low is not None and row.high is not None:
            line = element("line", x1=at(100 * row.low), x2=at(100 * row.high), y1=y, y2=y, class_="whisker")
            told += f", 95 % between {100 * row.low:+.2f} and {100 * row.high:+.2f}"
        parts.append(
            element(
                "g",
                element("title", told),
                text(row.name, labels - 18, y + 4, anchor="end", most=most, class_="label"),
                line,
                element("circle", cx=at(points), cy=y, r=4.5, class_=f"dot {look}"),
                text(f"{points:+.1f}", width - _RIGHT + 18, y + 4, class_="value"),
            )
        )
    told = "; ".join(f"{row.name} {points:+.1f}" for row, points in known[:40])
    return chart(title, told, width, bottom + _AXIS, *parts)
