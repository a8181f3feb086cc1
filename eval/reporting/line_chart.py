"""Lines over two axes: precision over recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from eval.reporting.svg import WIDTH, chart, element, text

__all__ = ["Line", "line_chart"]

_HEIGHT = 380.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 150.0, 10.0, 40.0
_MARKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_LABEL_GAP = 13.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of points in 0-1, x ascending.

    Attributes:
        label: in the legend.
        points: (x, y) of each.
        look: style of the line.
        is_dashed: told apart without colour.
    """

    label: str
    points: Sequence[tuple[float, float]]
    look: Literal["ours", "base", "novel", "plain", "third"] = "plain"
    is_dashed: bool = False


def line_chart(title: str, lines: Sequence[Line], *, x: str, y: str, id_: str = "") -> Markup:
    """The lines in a frame from 0 to 1 both ways.

    Args:
        title: what is shown; not drawn, but read aloud.
        lines: drawn in this order.
        x: name of the axis.
        y: name of the other axis.
        id_: of an empty path drawn on top, for a line that a script puts there.
    """
    right, bottom = WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(px: float, py: float) -> tuple[float, float]:
        return _LEFT + px * (right - _LEFT), bottom - py * (bottom - _TOP)

    parts: list[Markup] = []
    for mark in _MARKS:
        at_x, at_y = place(mark, mark)
        parts.append(element("line", x1=at_x, x2=at_x, y1=_TOP, y2=bottom, class_="grid"))
        parts.append(element("line", x1=_LEFT, x2=right, y1=at_y, y2=at_y, class_="grid"))
        parts.append(text(f"{mark:g}", at_x, bottom + 15, anchor="middle", class_="axis"))
        parts.append(text(f"{mark:g}", _LEFT - 7, at_y + 4, anchor="end", class_="axis"))
    parts.append(text(x, (_LEFT + right) / 2, _HEIGHT - 6, anchor="middle", class_="axis"))
    middle = (_TOP + bottom) / 2
    parts.append(
        element(
            "g",
            text(y, 0, 0, anchor="middle", class_="axis"),
            transform=f"translate(12 {middle:g}) rotate(-90)",
        )
    )
    for line in lines:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (place(*point) for point in line.points))
        drawn = element("polyline", points=path, class_=_class(line))
        parts.append(element("g", element("title", line.label), drawn))
    parts += _legend(lines, right + 12)
    if id_:
        frame = f"{_LEFT:g} {_TOP:g} {right:g} {bottom:g}"
        parts.append(element("polyline", points="", class_="line chosen", id_=id_, data_frame=frame))
    told = "; ".join(f"{line.label}: {_area(line.points):.3f}" for line in lines)
    return chart(title, f"Area under each line: {told}", WIDTH, _HEIGHT, *parts)


def _legend(lines: Sequence[Line], left: float) -> list[Markup]:
    """Names beside a stroke of their line, in the order of the lines."""
    parts = []
    for i, line in enumerate(lines):
        y = _TOP + 12 + i * (_LABEL_GAP + 3)
        stroke = element("line", x1=left, x2=left + 18, y1=y - 4, y2=y - 4, class_=_class(line))
        parts.append(stroke + text(line.label, left + 24, y, class_="axis", most=18))
    return parts


def _class(line: Line) -> str:
    return f"line {line.look}{' dashed' if line.is_dashed else ''}"


def _area(points: Sequence[tuple[float, float]]) -> float:
    return sum(y for _, y in points) / max(1, len(points))
