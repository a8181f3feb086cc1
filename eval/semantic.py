"""mIoU of the maps of scenes, by detectron2's rule: means are over the classes that have ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.metrics import Category, ConfusionMatrix, miou, score_semantic
from ovperception.datasets.scenes import SceneCategory, SceneSample
from ovperception.structures import SemanticMap

__all__ = ["SemanticEvaluator"]


class SemanticEvaluator:
    """Collects maps of scenes.

    Args:
        categories: the classes asked for, in the order of the answers' labels; pixels of others are not
            judged.
    """

    def __init__(self, categories: Sequence[SceneCategory]) -> None:
        self._categories = tuple(categories)
        self._index = np.full(max(c.id for c in categories) + 1, -1, np.int32)
        for index, category in enumerate(categories):
            self._index[category.id] = index
        self.confusion = ConfusionMatrix(len(categories))

    def add(self, sample: SceneSample, found: SemanticMap) -> None:
        """Takes one image."""
        ids = sample.labels
        inside = ids < len(self._index)
        truth = np.where(inside, self._index[np.where(inside, ids, 0)], -1)
        self.confusion.add(truth, found.labels)

    def metrics(self) -> dict[str, float | None]:
        """``semantic/...``, 0-1; None where nothing can be said. "Base" is base things and stuff."""
        groups = {
            "": range(len(self._categories)),
            "_base": [i for i, c in enumerate(self._categories) if not c.is_novel],
            "_novel": [i for i, c in enumerate(self._categories) if c.is_novel],
            "_things": [i for i, c in enumerate(self._categories) if c.is_thing],
            "_stuff": [i for i, c in enumerate(self._categories) if not c.is_thing],
        }
        rows = {f"mIoU{name}": miou(self.confusion, classes) for name, classes in groups.items()}
        named = [Category(id=c.id, name=c.name) for c in self._categories]
        whole = score_semantic(self.confusion, named).metrics
        rows |= {name: whole[name] for name in ("fwIoU", "mACC", "pACC")}
        return {f"semantic/{name}": value for name, value in rows.items()}
