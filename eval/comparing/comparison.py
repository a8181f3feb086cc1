"""The comparison: every number of both runs, their difference, and its interval under a paired bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.comparing.resampled import Resampled, resample
from eval.comparing.resampling import draws, interval
from eval.comparing.same import check_comparable, differences
from eval.outcome import Outcome
from ovperception.errors import InvalidParameter

__all__ = ["RESAMPLES", "Change", "Comparison", "compare"]

RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One number of both runs.

    Attributes:
        name: of the metric or the class.
        a: of the first run; None where nothing can be said.
        b: of the second.
        low: lower end of the interval of B - A; None where none was made.
        high: its upper end.
        groups: of a class.
        class_id: of a class, else None.
    """

    name: str
    a: float | None
    b: float | None
    low: float | None = None
    high: float | None = None
    groups: tuple[str, ...] = ()
    class_id: int | None = None

    @property
    def difference(self) -> float | None:
        """B - A."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def is_clear(self) -> bool:
        """The interval does not hold zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs, A and B, side by side.

    Attributes:
        names: what A and B are called.
        protocol: of both.
        title: of the protocol.
        headline: the metric people quote.
        column: the number of a class that is compared.
        metrics: in the order of A's.
        per_class: the largest gain first, classes without numbers last.
        differs: what else differs: name, A's, B's.
        statistic: what was resampled, in words.
        resamples: R.
        seed: of the draws.
        images: how many images were drawn from.
        no_interval: why there are no intervals of the metrics; "" where there are.
    """

    names: tuple[str, str]
    protocol: str
    title: str
    headline: str
    column: str
    metrics: tuple[Change, ...]
    per_class: tuple[Change, ...]
    differs: tuple[tuple[str, str, str], ...]
    statistic: str
    resamples: int
    seed: int
    images: int
    no_interval: str


def compare(
    first: Outcome,
    second: Outcome,
    folders: tuple[Path, Path],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two evaluations.

    Args:
        first: A.
        second: B.
        folders: of A and B, which relative paths start from.
        resamples: how often the images are drawn anew; 0 makes no intervals.
        seed: of the draws; the same seed gives the same intervals.

    Raises:
        InvalidParameter: the runs are of different protocols, data, words, images or classes; or a number is
            out of range.
    """
    check_comparable(first, second)
    if resamples < 0 or 0 < resamples < 100:
        raise InvalidParameter(
            "Too few resamples", field="resamples", expected="0, or 100 and more", got=resamples
        )
    ids = [image.image_id for image in first.images]
    made: Resampled | str = "no resamples were asked for"
    weights = np.zeros((0, len(ids)), np.int32)
    if not ids:
        made = "the runs do not tell their images"
    elif resamples:
        weights = draws(len(ids), resamples, seed)
        made = resample(first, second, folders, weights)
    column = next(iter(first.per_class[0].values), "") if first.per_class else ""
    known = made if isinstance(made, Resampled) else None
    metrics = _metrics(first, second, known)
    if resamples and ids:
        metrics += _image_score(first, second, weights)
    return Comparison(
        names=(_name(first, folders[0], "A"), _name(second, folders[1], "B")),
        protocol=first.protocol,
        title=first.title,
        headline=first.headline,
        column=column,
        metrics=metrics,
        per_class=_classes(first, second, column, known),
        differs=differences(first, second),
        statistic=_statistic(known, column),
        resamples=resamples,
        seed=seed,
        images=len(ids),
        no_interval=made if isinstance(made, str) else "",
    )


def _name(outcome: Outcome, folder: Path, letter: str) -> str:
    return f"{letter}: {outcome.facts.model or folder.name}"


def _statistic(made: Resampled | None, column: str) -> str:
    what = f"the metric itself, and {column} of each class" if made else "the mean score of an image"
    return (
        f"Percentile interval (95 %) of B - A under a paired bootstrap over images: {what}, computed anew on"
        " the same draws of the images for both runs."
    )


def _metrics(first: Outcome, second: Outcome, made: Resampled | None) -> tuple[Change, ...]:
    return tuple(
        _change(name, first.metrics.get(name), second.metrics.get(name), made.metrics if made else {})
        for name in (*first.metrics, *(name for name in second.metrics if name not in first.metrics))
    )


def _change(
    name: str, a: float | None, b: float | None, resampled: Mapping[str, NDArray[np.float64]]
) -> Change:
    low, high = (interval(resampled[name]) if name in resampled else None) or (None, None)
    return Change(name=name, a=a, b=b, low=low, high=high)


def _image_score(first: Outcome, second: Outcome, weights: NDArray[np.int32]) -> tuple[Change, ...]:
    """The mean over images of their own scores: no protocol's number, but one that needs no files."""
    theirs = {image.image_id: image.score for image in second.images}
    pairs = [
        (i, image.score, theirs[image.image_id])
        for i, image in enumerate(first.images)
        if image.score is not None and theirs[image.image_id] is not None
    ]
    if not pairs:
        return ()
    place = np.array([i for i, _, _ in pairs])
    a, b = (np.array([pair[side] for pair in pairs], np.float64) for side in (1, 2))
    drawn = weights[:, place]
    with np.errstate(invalid="ignore"):
        resampled = (drawn @ (b - a)) / drawn.sum(axis=1)
    low, high = interval(resampled) or (None, None)
    return (Change(name="mean score of an image", a=float(a.mean()), b=float(b.mean()), low=low, high=high),)


def _classes(first: Outcome, second: Outcome, column: str, made: Resampled | None) -> tuple[Change, ...]:
    others = {row.id: row for row in second.per_class}
    rows: list[Change] = []
    for k, row in enumerate(first.per_class):
        a, b = row.values.get(column), others[row.id].values.get(column)
        ends = interval(made.per_class[:, k]) if made else None
        if a is None or b is None:
            ends = None
        low, high = ends or (None, None)
        rows.append(Change(name=row.name, a=a, b=b, low=low, high=high, groups=row.groups, class_id=row.id))
    return _by_gain(rows)


def _by_gain(rows: Sequence[Change]) -> tuple[Change, ...]:
    return tuple(sorted(rows, key=lambda row: (row.difference is None, -(row.difference or 0.0))))
