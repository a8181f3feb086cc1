"""Panoptic quality by the rules of panopticapi (`evaluation.py`, `pq_compute_single_core`).

A predicted and a true segment match if they are of one class, the true one is no crowd, and their IoU is
above 0.5; the union leaves out predicted pixels that lie on void truth. True segments without a match are
missed, crowds excepted. Predicted ones without a match are false, unless more than half of them lies on void
and on the crowd of their own class. PQ of a class is the sum of the matches' IoU over TP + FP / 2 + FN / 2;
means are over the classes of which anything was counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.scenes import SceneCategory, SceneSample
from ovperception.errors import InvalidRegions
from ovperception.structures import PanopticMap

__all__ = ["PanopticEvaluator", "PanopticQuality", "PanopticSegment", "Quality", "Tally"]

_VOID = 0


@dataclass(frozen=True, slots=True)
class PanopticSegment:
    """One segment of a map: its id there, 1 and up, its class, and whether it stands for a crowd."""

    id: int
    category_id: int
    is_crowd: bool = False


@dataclass(slots=True)
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


class PanopticQuality:
    """Accumulates images, in any number of processes whose tallies are merged.

    Attributes:
        tallies: what was counted, by category id.
    """

    def __init__(self) -> None:
        self.tallies: dict[int, Tally] = {}

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
            InvalidRegions: the maps differ in size, or a map and its list of segments name different ids.
        """
        if truth_ids.shape != predicted_ids.shape:
            raise InvalidRegions(
                "The map is not of the size of its truth",
                expected=str(truth_ids.shape),
                got=predicted_ids.shape,
            )
        true_areas, found_areas = _areas(truth_ids), _areas(predicted_ids)
        true = _checked(truth, true_areas, "truth")
        found = _checked(predicted, found_areas, "predicted")
        shared = _intersections(truth_ids, predicted_ids)
        matched = self._match(shared, true, found, true_areas, found_areas)
        crowds: dict[int, int] = {}
        for segment in true.values():
            if segment.is_crowd:
                crowds[segment.category_id] = segment.id
            elif (True, segment.id) not in matched:
                self._tally(segment.category_id).fn += 1
        for segment in found.values():
            if (False, segment.id) in matched:
                continue
            excused = shared.get((_VOID, segment.id), 0)
            if segment.category_id in crowds:
                excused += shared.get((crowds[segment.category_id], segment.id), 0)
            if excused / found_areas[segment.id] <= 0.5:
                self._tally(segment.category_id).fp += 1

    def _match(
        self,
        shared: dict[tuple[int, int], int],
        true: dict[int, PanopticSegment],
        found: dict[int, PanopticSegment],
        true_areas: dict[int, int],
        found_areas: dict[int, int],
    ) -> set[tuple[bool, int]]:
        """Counts the matches; gives the ids that have one, as (is it a true segment, id)."""
        matched: set[tuple[bool, int]] = set()
        for (true_id, found_id), pixels in shared.items():
            if true_id not in true or found_id not in found:
                continue
            segment = true[true_id]
            if segment.is_crowd or segment.category_id != found[found_id].category_id:
                continue
            union = found_areas[found_id] + true_areas[true_id] - pixels - shared.get((_VOID, found_id), 0)
            iou = pixels / union
            if iou > 0.5:
                tally = self._tally(segment.category_id)
                tally.tp += 1
                tally.iou += iou
                matched |= {(True, true_id), (False, found_id)}
        return matched

    def _tally(self, category_id: int) -> Tally:
        return self.tallies.setdefault(category_id, Tally())

    def merge(self, other: PanopticQuality) -> None:
        """Adds what another one counted."""
        for category_id, theirs in other.tallies.items():
            ours = self._tally(category_id)
            ours.tp += theirs.tp
            ours.fp += theirs.fp
            ours.fn += theirs.fn
            ours.iou += theirs.iou

    def of(self, categories: Collection[int] | None = None) -> Quality | None:
        """Means over the classes of which anything was counted; None if there is none.

        Args:
            categories: ids of the classes; None for all.
        """
        ids = self.tallies if categories is None else categories
        rows = []
        for category_id in ids:
            tally = self.tallies.get(category_id, Tally())
            weight = tally.tp + 0.5 * tally.fp + 0.5 * tally.fn
            if weight:
                rows.append(
                    (tally.iou / weight, tally.iou / tally.tp if tally.tp else 0.0, tally.tp / weight)
                )
        if not rows:
            return None
        pq, sq, rq = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        return Quality(pq=pq, sq=sq, rq=rq, classes=len(rows))


def _areas(ids: NDArray[np.integer]) -> dict[int, int]:
    values, pixels = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), pixels.tolist(), strict=True))


def _checked(
    segments: Iterable[PanopticSegment], areas: dict[int, int], name: str
) -> dict[int, PanopticSegment]:
    listed = list(segments)
    by_id = {segment.id: segment for segment in listed}
    drawn = areas.keys() - {_VOID}
    if len(by_id) != len(listed) or by_id.keys() != drawn:
        extra, missing = sorted(by_id.keys() - drawn)[:9], sorted(drawn - by_id.keys())[:9]
        raise InvalidRegions(
            "The segments listed are not those of the map",
            field=name,
            expected="every id of the map listed once, and no other",
            got=f"listed only: {extra}, drawn only: {missing}",
        )
    return by_id


def _intersections(truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> dict[tuple[int, int], int]:
    """Pixels of every pair (true id, predicted id) that meets, in ascending order."""
    pairs, pixels = np.unique(truth.astype(np.int64) << 32 | predicted.astype(np.int64), return_counts=True)
    rows = zip((pairs >> 32).tolist(), (pairs & 0xFFFFFFFF).tolist(), pixels.tolist(), strict=True)
    return {(true_id, found_id): count for true_id, found_id, count in rows}


class PanopticEvaluator:
    """Collects maps of scenes.

    Args:
        categories: the classes asked for, in the order of the answers' class ids; pixels of others become
            void.
    """

    def __init__(self, categories: Sequence[SceneCategory]) -> None:
        self._categories = tuple(categories)
        self._known = frozenset(c.id for c in categories)
        self.quality = PanopticQuality()

    def add(self, sample: SceneSample, found: PanopticMap) -> None:
        """Takes one image."""
        judged = [s for s in sample.segments if s.category_id in self._known]
        kept = np.zeros(max(s.id for s in sample.segments) + 1, np.int32)
        for segment in judged:
            kept[segment.id] = segment.id
        self.quality.add(
            kept[sample.panoptic],
            [PanopticSegment(s.id, s.category_id) for s in judged],
            found.ids,
            [PanopticSegment(s.id, self._categories[s.class_id].id) for s in found.segments],
        )

    def metrics(self) -> dict[str, float | None]:
        """``panoptic/...``, 0-1; None where nothing can be said. "Base" is base things and stuff."""
        groups = {
            "": [c.id for c in self._categories],
            "_things": [c.id for c in self._categories if c.is_thing],
            "_stuff": [c.id for c in self._categories if not c.is_thing],
            "_base": [c.id for c in self._categories if not c.is_novel],
            "_novel": [c.id for c in self._categories if c.is_novel],
        }
        rows: dict[str, float | None] = {}
        for name, ids in groups.items():
            quality = self.quality.of(ids)
            rows[f"panoptic/PQ{name}"] = None if quality is None else quality.pq
            rows[f"panoptic/SQ{name}"] = None if quality is None else quality.sq
            rows[f"panoptic/RQ{name}"] = None if quality is None else quality.rq
        return rows
