"""How well the images went, one by one: a histogram of their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from eval.outcome import ImageScore
from eval.reporting.svg import WIDTH, chart, element, text, ticks

__all__ = ["score_chart"]

_HEIGHT = 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 10.0, 8.0, 40.0
_BINS = 20


def score_chart(images: Sequence[ImageScore]) -> Markup:
    """Twenty columns from 0 to 1; empty if no image has a score."""
    scores = np.array([image.score for image in images if image.score is not None])
    if not scores.size:
        return Markup("")
    counts, _ = np.histogram(scores, _BINS, (0.0, 1.0))
    marks = [mark for mark in ticks(float(counts.max()), 4) if mark == int(mark)]
    bottom, right = _HEIGHT - _BOTTOM, WIDTH - _RIGHT
    step = (right - _LEFT) / _BINS
    tall = (bottom - _TOP) / marks[-1]
    parts = []
    for mark in marks:
        y = bottom - tall * mark
        parts.append(element("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(text(f"{mark:,.0f}", _LEFT - 7, y + 4, anchor="end", class_="axis"))
    for i, count in enumerate(counts.tolist()):
        told = f"{count} images from {5 * i} to {5 * i + 5} %"
        place = {"x": _LEFT + step * i + 1, "y": bottom - tall * count, "width": step - 2}
        parts.append(
            element("rect", element("title", told), **place, height=tall * count, class_="bar plain")
        )
    for share in (0, 25, 50, 75, 100):
        x = _LEFT + (right - _LEFT) * share / 100
        parts.append(text(str(share), x, bottom + 15, anchor="middle", class_="axis"))
    parts.append(
        text("score of an image, %", (_LEFT + right) / 2, _HEIGHT - 6, anchor="middle", class_="axis")
    )
    told = f"{len(scores)} images, median {100 * float(np.median(scores)):.1f} %"
    return chart("Scores of the images", told, WIDTH, _HEIGHT, *parts)
