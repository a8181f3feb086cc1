"""A small confusion matrix: rows are what is there, columns what was said, darker is more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from eval.reporting.svg import chart, element, text

__all__ = ["heat_grid"]

_CELL, _HEAD, _PAD = 24.0, 104.0, 4.0
_LETTERS, _LETTER = 18, 6.2


def heat_grid(shares: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str]) -> Markup:
    """The grid.

    Args:
        shares: (R, C) share of a row's class that was called by a column's, 0-1.
        rows: (R,) names of what is there.
        columns: (C,) names of what was said; where both names are equal the cell is right, not wrong.
    """
    left = 16 + _LETTER * min(_LETTERS, max(map(len, rows)))
    parts: list[Markup] = []
    for j, name in enumerate(columns):
        x = left + _CELL * j + _CELL / 2 + 4
        label = text(name, 0, 0, class_="axis", most=_LETTERS)
        parts.append(element("g", label, transform=f"translate({x:g} {_HEAD - 6:g}) rotate(-60)"))
    for i, name in enumerate(rows):
        y = _HEAD + _CELL * i
        parts.append(text(name, left - 8, y + _CELL / 2 + 4, anchor="end", class_="axis", most=_LETTERS))
        for j, column in enumerate(columns):
            share = float(shares[i, j])
            look = "cell right" if name == column else "cell wrong"
            told = f"{name} called {column}: {100 * share:.1f} %"
            parts.append(
                element(
                    "rect",
                    element("title", told),
                    x=left + _CELL * j,
                    y=y,
                    width=_CELL - 1.5,
                    height=_CELL - 1.5,
                    class_=look,
                    style=f"--share:{share**0.5:.3f}",
                )
            )
    told = "; ".join(
        f"{rows[i]} called {columns[j]} {100 * shares[i, j]:.0f} %"
        for i, j in _largest(shares, rows, columns)
    )
    width = left + _CELL * len(columns) + 60
    return chart("Confusion of classes", told, width, _HEAD + _CELL * len(rows) + _PAD, *parts)


def _largest(
    shares: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str]
) -> list[tuple[int, int]]:
    order = np.argsort(-shares, axis=None, kind="stable")
    places = [(int(o) // len(columns), int(o) % len(columns)) for o in order[:60]]
    return [(i, j) for i, j in places if rows[i] != columns[j] and shares[i, j] > 0][:10]
