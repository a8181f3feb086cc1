"""Naming of true boxes: what is known of a region when nothing has to be found.

Every model has an embedding of a box, so its nearest name is judged for every model. Where a head classifies
given boxes, its scores are judged as detections as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from eval.metrics import COCO_LIMITS, score_coco
from eval.scenes.naming import Pairs, naming_numbers
from ovperception.datasets.scenes import SceneCategory, SceneSample
from ovperception.errors import Unsupported
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovperception.model import Model, Scene

__all__ = ["RegionNamer", "region_numbers"]


class RegionNamer:
    """Gives a model the true boxes of scenes.

    Args:
        model: to be judged.
        categories: the classes that count; a scene's other things are not shown.
        words: all their names, one class a category in the same order: what detections are asked for.
        things: the names of the things alone, in the same order: what the nearest one is chosen from.
    """

    def __init__(
        self, model: Model, categories: Sequence[SceneCategory], words: Vocabulary, things: Vocabulary
    ) -> None:
        self._ids = [c.id for c in categories]
        self._index = {c.id: i for i, c in enumerate(c for c in categories if c.is_thing)}
        self._words = words
        self._classifier = model.classifier(things)
        self._classifies = _classifies_boxes(model)

    def record(self, sample: SceneSample, looked: Scene) -> dict[str, Any]:
        """Names of the boxes of one scene, and what the head makes of them, if it classifies any."""
        shown = [s for s in sample.things if s.category_id in self._index]
        if not shown:
            return {"region": []}
        boxes = [s.box for s in shown]
        embeddings = torch.from_numpy(looked.embed_regions(boxes))
        rows = self._classifier.embeddings.to(embeddings)
        chosen = self._classifier.reduce(embeddings @ rows.T).argmax(dim=1).tolist()
        true = [self._index[s.category_id] for s in shown]
        record: dict[str, Any] = {"region": [list(pair) for pair in zip(true, chosen, strict=True)]}
        if self._classifies:
            found = looked.detect(
                self._words,
                boxes=boxes,
                score_threshold=0.0,
                max_detections=COCO_LIMITS[-1],
                masks=False,
            )
            record["found"] = [
                row for row in found.to_coco(0, self._ids) if row["category_id"] in self._index
            ]
            record["true"] = [
                {"category_id": s.category_id, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": s.area}
                for s in shown
                for x0, y0, x1, y1 in [s.box]
            ]
        return record


def region_numbers(
    records: Iterable[Mapping[str, Any]], categories: Sequence[SceneCategory]
) -> dict[str, float | None]:
    """``region/...``, 0-1; None where nothing can be said."""
    things = [c for c in categories if c.is_thing]
    pairs: list[Pairs] = [np.zeros((0, 2), np.int64)]
    truth: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": c.id, "name": c.name} for c in things],
    }
    results: list[dict[str, Any]] = []
    for number, record in enumerate(records, 1):
        pairs.append(np.array(record["region"], np.int64).reshape(-1, 2))
        if "true" in record:
            truth["images"].append({"id": number})
            results += [{**row, "image_id": number} for row in record["found"]]
            for row in record["true"]:
                truth["annotations"].append(
                    {**row, "id": len(truth["annotations"]) + 1, "image_id": number, "iscrowd": 0}
                )
    numbers = naming_numbers("region/top1", np.concatenate(pairs), things)
    curves = score_coco(truth, results).curves if truth["images"] else None
    groups = {
        "": [c.id for c in things],
        "_base": [c.id for c in things if not c.is_novel],
        "_novel": [c.id for c in things if c.is_novel],
    }
    for suffix, ids in groups.items():
        numbers[f"region/AP50{suffix}"] = None if curves is None else curves.ap(ids, iou=0.5)
    return numbers


def _classifies_boxes(model: Model) -> bool:
    try:
        model.head_for("detect", given_boxes=True)
    except Unsupported:
        return False
    return True
