"""The word pairs that are confused most, and a small matrix of the classes they are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from eval.outcome import ConfusedPair, Outcome
from eval.reporting.heat_grid import heat_grid

__all__ = ["ConfusionView", "confusion_view"]

_CLASSES = 14
_PAIRS = 40
_NOTHING = "(nothing)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionView:
    """What is counted, the pairs, and their picture."""

    unit: str
    pairs: tuple[ConfusedPair, ...]
    missed: tuple[ConfusedPair, ...]
    imagined: tuple[ConfusedPair, ...]
    grid: Markup


def confusion_view(outcome: Outcome) -> ConfusionView | None:
    """The pairs of two different words, apart from what was not found and what was found in nothing."""
    wrong = [pair for pair in outcome.confusion if pair.truth != pair.predicted]
    if not wrong:
        return None
    pairs = [pair for pair in wrong if pair.truth and pair.predicted]
    return ConfusionView(
        unit="pixels" if outcome.kind in ("semantic", "panoptic", "few-shot") else "objects",
        pairs=tuple(pairs[:_PAIRS]),
        missed=tuple(pair for pair in wrong if not pair.predicted)[:_PAIRS],
        imagined=tuple(pair for pair in wrong if not pair.truth)[:_PAIRS],
        grid=_grid(outcome, pairs) if pairs else Markup(""),
    )


def _grid(outcome: Outcome, pairs: list[ConfusedPair]) -> Markup:
    names: list[str] = []
    for pair in pairs:
        new = [name for name in (pair.truth, pair.predicted) if name not in names]
        if len(names) + len(new) > _CLASSES:
            break
        names += new
    place = {name: i for i, name in enumerate(names)}
    shares = np.zeros((len(names), len(names) + 1))
    # Only what went wrong is listed as a pair; how much went right, the class itself tells, if anything.
    for row in outcome.per_class:
        if row.name in place:
            shares[place[row.name], place[row.name]] = row.values.get("ACC") or 0.0
    for pair in outcome.confusion:
        if pair.truth in place and (pair.predicted in place or not pair.predicted):
            shares[place[pair.truth], place.get(pair.predicted, len(names))] = pair.share
    return heat_grid(shares, names, [*names, _NOTHING])
