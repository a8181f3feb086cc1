"""Precision over recall: the means at each overlap, and a place for the curve of a chosen class."""

from __future__ import annotations

from typing import Literal

from markupsafe import Markup

from eval.outcome import Curve, Outcome
from eval.reporting.line_chart import Line, line_chart
from eval.reporting.names import group_name

__all__ = ["CHOSEN_LINE", "curves_chart"]

CHOSEN_LINE = "chosen-curve"
"""Id of the line that the page's script moves."""


_LOOKS: dict[str, Literal["ours", "base", "novel", "third"]] = {
    **{"all": "ours", "base": "base", "novel": "novel"},
    **{"r": "novel", "c": "third", "f": "base"},
}


def curves_chart(outcome: Outcome) -> Markup:
    """The mean curves; empty if there are none."""
    means = [curve for curve in outcome.curves if curve.class_id is None]
    if not means:
        return Markup("")
    lines = [
        Line(
            label=_label(curve),
            points=[(i / (len(curve.precision) - 1), p) for i, p in enumerate(curve.precision)]
            if len(curve.precision) > 1
            else [],
            look=_LOOKS.get(curve.name, "plain"),
            is_dashed=curve.iou != 0.5,
        )
        for curve in means
    ]
    return line_chart(
        "Precision over recall, mean over classes", lines, x="recall", y="precision", id_=CHOSEN_LINE
    )


def _label(curve: Curve) -> str:
    return f"{group_name(curve.name)}, {curve.iou:.2f}" if curve.iou else f"{group_name(curve.name)}, mean"
