"""Panoptic quality by the rules of panopticapi (`evaluation.py`, `pq_compute_single_core`).

A predicted and a true segment match if they are of one class, the true one is no crowd, and their IoU is
above 0.5; the union leaves out predicted pixels that lie on void truth. True segments without a match are
missed, crowds excepted. Predicted ones without a match are false, unless more than half of them lies on void
and on the crowd of their own class; of several crowds of a class, the last one listed. PQ of a class is the
sum of the matches' IoU over TP + FP / 2 + FN / 2; means are over the classes of which anything was counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from eval.metrics.confusion import pair_runs
from eval.metrics.scores import Category, ClassScore, PanopticScores
from ovperception.errors import InvalidParameter, InvalidRegions

__all__ = ["PanopticQuality", "PanopticSegment", "Quality", "Tally"]

_VOID = 0


@dataclass(frozen=True, slots=True)
class PanopticSegment:
    """One segment of a map: its id there, 1 and up, its class, and whether it stands for a crowd."""

    id: int
    category_id: int
    is_crowd: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of one class; `iou` is the sum over the matches."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    iou: float = 0.0


@dataclass(frozen=True, slots=True)
class Quality:
    """Panoptic, segmentation and recognition quality, 0-1, and the number of classes they are means of."""

    pq: float
    sq: float
    rq: float
    classes: int


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Segments of one map by ascending id, void first: K' = 1 + number of segments."""

    ids: NDArray[np.int64]  # (K',)
    rows: NDArray[np.int64]  # (K',) index of the category, -1 for void
    crowd: NDArray[np.bool_]  # (K',)
    areas: NDArray[np.int64]  # (K',)
    runs: NDArray[np.int64]  # index into the above of every run of pixels
    listed: NDArray[np.int64]  # index into the above of every segment, in the order of the list


class PanopticQuality:
    """Accumulates images, in any number of processes whose counts are merged.

    Args:
        categories: all classes that a segment may have.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        self.categories = tuple(categories)
        self._row = {category.id: i for i, category in enumerate(self.categories)}
        self._matches = np.zeros((len(self.categories), 3), np.int64)  # tp, fp, fn
        self._iou = np.zeros(len(self.categories))
        self.images = 0

    def add(
        self,
        truth_ids: NDArray[np.integer],
        truth: Iterable[PanopticSegment],
        predicted_ids: NDArray[np.integer],
        predicted: Iterable[PanopticSegment],
    ) -> None:
        """Takes one image.

        Args:
            truth_ids: (H, W) segment id per pixel, 0 is void.
            truth: the segments of it, each once.
            predicted_ids: (H, W), the same of the answer.
            predicted: the segments of it.

        Raises:
            InvalidRegions: the maps differ in size, a map and its list of segments name different ids, or a
                segment is of no known class.
        """
        if truth_ids.shape != predicted_ids.shape:
            raise InvalidRegions(
                "The map is not of the size of its truth",
                expected=str(truth_ids.shape),
                got=predicted_ids.shape,
            )
        true_runs, found_runs, pixels = pair_runs(truth_ids, predicted_ids)
        true = self._drawn(true_runs, truth, pixels, "truth")
        found = self._drawn(found_runs, predicted, pixels, "predicted")
        pairs, shared = _intersections(true.runs * len(found.ids) + found.runs, pixels)
        i, j = np.divmod(pairs, len(found.ids))
        on_void = np.zeros(len(found.ids), np.int64)
        on_void[j[i == 0]] = shared[i == 0]
        candidates = (i > 0) & (j > 0) & ~true.crowd[i] & (true.rows[i] == found.rows[j])
        i, j, both = i[candidates], j[candidates], shared[candidates]
        iou = both / (true.areas[i] + found.areas[j] - both - on_void[j])
        matched = iou > 0.5
        i, j = i[matched], j[matched]
        # Unbuffered, in ascending order of the pairs: the sums are those of panopticapi to the last bit.
        np.add.at(self._iou, true.rows[i], iou[matched])
        np.add.at(self._matches[:, 0], true.rows[i], 1)
        missed = ~true.crowd
        missed[i] = missed[0] = False
        np.add.at(self._matches[:, 2], true.rows[missed], 1)
        false = on_void + _on_own_crowd(true, found, pairs, shared) <= found.areas / 2
        false[j] = false[0] = False
        np.add.at(self._matches[:, 1], found.rows[false], 1)
        self.images += 1

    def _drawn(
        self,
        runs: NDArray[np.integer],
        segments: Iterable[PanopticSegment],
        pixels: NDArray[np.int64],
        name: str,
    ) -> _Drawn:
        listed = list(segments)
        ids = np.array([_VOID, *(segment.id for segment in listed)], np.int64)
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        positions = np.searchsorted(ids, runs)
        positions[positions == len(ids)] = 0
        areas = np.bincount(positions, weights=pixels, minlength=len(ids)).astype(np.int64)
        wrong = (ids[positions] != runs).any() or not areas[1:].all()
        if wrong or ids[0] != _VOID or (np.diff(ids) == 0).any():
            raise _disagreement(name, ids[1:] if ids[0] == _VOID else ids, runs)
        return _Drawn(
            ids=ids,
            rows=np.array([-1, *(self._row_of(segment, name) for segment in listed)], np.int64)[order],
            crowd=np.array([False, *(segment.is_crowd for segment in listed)], bool)[order],
            areas=areas,
            runs=positions.astype(np.int64, copy=False),
            listed=np.argsort(order, kind="stable")[1:],
        )

    def _row_of(self, segment: PanopticSegment, name: str) -> int:
        row = self._row.get(segment.category_id)
        if row is None:
            raise InvalidRegions(
                f"Segment {segment.id} is of no known class",
                field=name,
                expected=f"one of {len(self._row)} category ids, such as {list(self._row)[:5]}",
                got=segment.category_id,
            )
        return row

    def merge(self, other: PanopticQuality) -> None:
        """Adds what another one counted.

        Raises:
            InvalidParameter: it is of other categories.
        """
        if [c.id for c in self.categories] != [c.id for c in other.categories]:
            raise InvalidParameter(
                "Two counts are of different classes",
                expected=f"{len(self.categories)} categories",
                got=len(other.categories),
            )
        self._matches += other._matches
        self._iou += other._iou
        self.images += other.images

    def __add__(self, other: PanopticQuality) -> PanopticQuality:
        total = PanopticQuality(self.categories)
        total.merge(self)
        total.merge(other)
        return total

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` makes an equal one of; can be sent, or written with `numpy.savez`."""
        ids = np.array([category.id for category in self.categories], np.int64)
        return {"ids": ids, "matches": self._matches, "iou": self._iou, "images": np.array(self.images)}

    @classmethod
    def from_arrays(cls, categories: Sequence[Category], arrays: dict[str, NDArray[Any]]) -> Self:
        """The one that `to_arrays` was called on.

        Raises:
            InvalidParameter: it was of other categories.
        """
        quality = cls(categories)
        if [category.id for category in quality.categories] != arrays["ids"].tolist():
            raise InvalidParameter("These counts are of different classes", field="categories")
        quality._matches += arrays["matches"]
        quality._iou += arrays["iou"]
        quality.images = int(arrays["images"])
        return quality

    @property
    def tallies(self) -> dict[int, Tally]:
        """What was counted of each class, by category id; classes of which nothing was are left out."""
        rows = zip(self.categories, self._matches.tolist(), self._iou.tolist(), strict=True)
        return {category.id: Tally(tp, fp, fn, iou) for category, (tp, fp, fn), iou in rows if tp + fp + fn}

    def of(self, categories: Collection[int] | None = None) -> Quality | None:
        """Means over the classes of which anything was counted; None if there is none.

        Args:
            categories: ids of the classes; None for all.
        """
        tallies = self.tallies
        wanted = frozenset(tallies if categories is None else categories)
        rows = [_qualities(tally) for category_id, tally in tallies.items() if category_id in wanted]
        if not rows:
            return None
        pq, sq, rq = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        return Quality(pq=pq, sq=sq, rq=rq, classes=len(rows))

    def scores(self) -> PanopticScores:
        """PQ, SQ and RQ of all classes, of things, of stuff, and of each group."""
        parts = {
            "": [c.id for c in self.categories],
            "_things": [c.id for c in self.categories if c.is_thing],
            "_stuff": [c.id for c in self.categories if not c.is_thing],
        }
        for group in dict.fromkeys(c.group for c in self.categories if c.group):
            parts[f"_{group}"] = [c.id for c in self.categories if c.group == group]
        metrics: dict[str, float | None] = {}
        for part, ids in parts.items():
            mean = self.of(ids)
            for name in ("PQ", "SQ", "RQ"):
                metrics[f"{name}{part}"] = None if mean is None else getattr(mean, name.lower())
        return PanopticScores(
            metrics=metrics,
            per_class=self._per_class(),
            rules={"PQ": "panopticapi", "counted": f"{len(self.tallies)} classes"},
            images=self.images,
            quality=self,
        )

    def _per_class(self) -> tuple[ClassScore, ...]:
        tallies = self.tallies
        rows = []
        for category in self.categories:
            tally = tallies.get(category.id)
            pq, sq, rq = (None, None, None) if tally is None else _qualities(tally)
            counts = tally or Tally()
            values: dict[str, float | None] = {"PQ": pq, "SQ": sq, "RQ": rq}
            values |= {"TP": counts.tp, "FP": counts.fp, "FN": counts.fn}
            rows.append(ClassScore(category=category, values=values))
        return tuple(rows)


def _qualities(tally: Tally) -> tuple[float, float, float]:
    weight = tally.tp + 0.5 * tally.fp + 0.5 * tally.fn
    return tally.iou / weight, tally.iou / tally.tp if tally.tp else 0.0, tally.tp / weight


def _intersections(
    pairs: NDArray[np.int64], pixels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every pair that occurs, in ascending order, and its pixels."""
    found, inverse = np.unique(pairs, return_inverse=True)
    return found, np.bincount(inverse, weights=pixels, minlength=len(found)).astype(np.int64)


def _on_own_crowd(
    true: _Drawn, found: _Drawn, pairs: NDArray[np.int64], shared: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(K',) pixels of each predicted segment that lie on the crowd of its class."""
    pixels = np.zeros(len(found.ids), np.int64)
    crowd_of = {int(true.rows[i]): int(i) for i in true.listed if true.crowd[i]}
    for row, i in crowd_of.items():
        for j in np.flatnonzero(found.rows == row):
            at = int(np.searchsorted(pairs, i * len(found.ids) + j))
            if at < len(pairs) and pairs[at] == i * len(found.ids) + j:
                pixels[j] = shared[at]
    return pixels


def _disagreement(name: str, listed: NDArray[np.int64], runs: NDArray[np.integer]) -> InvalidRegions:
    drawn = set(np.unique(runs).tolist()) - {_VOID}
    names = set(listed.tolist())
    twice = len(listed) - len(names)
    return InvalidRegions(
        "The segments listed are not those of the map",
        field=name,
        expected="every id of the map listed once, and no other",
        got=f"listed only: {sorted(names - drawn)[:9]}, drawn only: {sorted(drawn - names)[:9]}, "
        f"listed twice: {twice}",
    )
