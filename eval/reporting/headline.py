"""The numbers that people quote, and the published ones they stand beside."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from eval.outcome import Outcome
from eval.protocols.published import Published, published
from eval.reporting.bar_chart import Bar, bar_chart
from eval.reporting.numbers import is_time, meaning, written
from eval.running.annotation_checks import FOREIGN

__all__ = ["Beside", "Tile", "beside_published", "tiles"]

_TILES = 6
_BARS = 12
_PARTS_OF_AP = ("APr", "APc", "APf")
_DETAILS = re.compile(r"AP[sml]\b|AR")
"""Of sizes, and recall: the table has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number in large letters."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One metric of ours among those that others published."""

    metric: str
    chart: Markup
    rows: tuple[Published, ...]
    left_out: int


def tiles(outcome: Outcome) -> tuple[Tile, ...]:
    """The headline, then what the field quotes beside it; what has no value only if it is the headline."""
    names = sorted(
        (
            name
            for name, value in outcome.metrics.items()
            if name == outcome.headline or (value is not None and not is_time(name))
        ),
        key=lambda name: _rank(name, outcome.headline),
    )
    return tuple(
        Tile(name=name, value=written(name, outcome.metrics[name]), meaning=meaning(name))
        for name in names[:_TILES]
    )


def _rank(name: str, headline: str) -> int:
    """0 of the headline, 1 of the whole vocabulary, 2 of the headline's parts, 3 of others, 4 of details."""
    if name == headline:
        return 0
    if _DETAILS.match(name):
        return 4
    family = headline.partition("_")[0]
    if name.startswith(f"{family}_") or (family == "AP" and name in _PARTS_OF_AP):
        return 2
    return 3 if "_" in name or name in _PARTS_OF_AP else 1


def beside_published(outcome: Outcome) -> tuple[Beside, ...]:
    """For each metric that others published under the same protocol, bars and the rows they come from."""
    if any(warning.name == FOREIGN for warning in outcome.warnings):
        return ()
    rows = published(outcome.protocol)
    metrics = sorted({row.metric for row in rows}, key=lambda name: (name != outcome.headline, name))
    return tuple(
        _beside(outcome, metric, tuple(row for row in rows if row.metric == metric))
        for metric in metrics
        if metric in outcome.metrics
    )


def _beside(outcome: Outcome, metric: str, rows: tuple[Published, ...]) -> Beside:
    value = outcome.metrics[metric]
    ours = Bar(
        label=outcome.facts.model or "this result file",
        value=None if value is None else 100 * value,
        look="ours",
        note="measured in this run",
    )
    others = [
        Bar(
            label=f"{row.method} {row.backbone}".strip(),
            value=row.value,
            look="published",
            note=f"published: {row.source}{f'; {row.note}' if row.note else ''}",
        )
        for row in rows[:_BARS]
    ]
    bars = sorted([ours, *others], key=lambda bar: -1.0 if bar.value is None else bar.value, reverse=True)
    return Beside(
        metric=metric,
        chart=bar_chart(f"{metric} of this run among published numbers", bars),
        rows=rows,
        left_out=max(0, len(rows) - _BARS),
    )
