"""Panoptic quality of the maps of scenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.metrics import Category, PanopticQuality, PanopticSegment
from ovperception.datasets.scenes import SceneCategory, SceneSample
from ovperception.structures import PanopticMap

__all__ = ["PanopticEvaluator"]


class PanopticEvaluator:
    """Collects maps of scenes.

    Args:
        categories: the classes asked for, in the order of the answers' class ids; pixels of others become
            void.
    """

    def __init__(self, categories: Sequence[SceneCategory]) -> None:
        self._categories = tuple(categories)
        self._known = frozenset(c.id for c in categories)
        self.quality = PanopticQuality(
            [Category(id=c.id, name=c.name, is_thing=c.is_thing) for c in self._categories]
        )

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
