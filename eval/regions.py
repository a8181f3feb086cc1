"""Naming of true boxes: what is known of a region when nothing has to be found.

Every model has an embedding of a box, so its nearest name is judged for every model. Where a head classifies
given boxes, its scores are judged as detections as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from eval.detection import MAX_DETECTIONS, DetectionEvaluator
from eval.naming import NamingTally
from ovperception.datasets.scenes import SceneCategory, SceneSample
from ovperception.errors import Unsupported
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovperception.model import Model, Scene

__all__ = ["RegionEvaluator"]


class RegionEvaluator:
    """Gives a model the true boxes of scenes and judges the names.

    Args:
        model: to be judged.
        categories: the classes that count; a scene's other things are not shown.
        words: all their names, one class a category in the same order: what detections are asked for.
        things: the names of the things alone, in the same order: what the nearest one is chosen from.
    """

    def __init__(
        self, model: Model, categories: Sequence[SceneCategory], words: Vocabulary, things: Vocabulary
    ) -> None:
        known = [c for c in categories if c.is_thing]
        self._index = {c.id: i for i, c in enumerate(known)}
        self._tally = NamingTally(known)
        self._words = words
        self._classifier = model.classifier(things)
        self._detections = DetectionEvaluator(categories) if _classifies_boxes(model) else None

    def add(self, sample: SceneSample, looked: Scene) -> None:
        """Takes one scene and what the model saw of it."""
        shown = [s for s in sample.things if s.category_id in self._index]
        if not shown:
            return
        boxes = [s.box for s in shown]
        embeddings = torch.from_numpy(looked.embed_regions(boxes))
        rows = self._classifier.embeddings.to(embeddings)
        chosen = self._classifier.reduce(embeddings @ rows.T).argmax(dim=1).numpy()
        self._tally.add(torch.tensor([self._index[s.category_id] for s in shown]).numpy(), chosen)
        if self._detections is not None:
            found = looked.detect(
                self._words,
                boxes=boxes,
                score_threshold=0.0,
                max_detections=MAX_DETECTIONS,
                masks=False,
            )
            self._detections.add(sample, found)

    def metrics(self) -> dict[str, float | None]:
        """``region/...``, 0-1; None where nothing can be said."""
        names = ("AP50", "AP50_base", "AP50_novel")
        boxes = {} if self._detections is None else self._detections.metrics()
        return self._tally.metrics("region/top1") | {f"region/{n}": boxes.get(f"box/{n}") for n in names}


def _classifies_boxes(model: Model) -> bool:
    try:
        model.head_for("detect", given_boxes=True)
    except Unsupported:
        return False
    return True
