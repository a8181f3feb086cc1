"""AP by hotcoco, a port of pycocotools and lvis-api to Rust."""

from __future__ import annotations

from typing import Any, cast

import hotcoco
import numpy as np

from eval.metrics.ap_engine import APTask
from eval.metrics.precision_recall import PrecisionRecall

__all__ = ["HotcocoEngine", "matched"]


class HotcocoEngine:
    """See `APEngine`; it uses all cores."""

    @property
    def label(self) -> str:
        """Name and version."""
        return f"hotcoco {hotcoco.__version__}"

    def accumulate(self, task: APTask) -> PrecisionRecall:
        """Precision and recall of a task whose overlaps are of boxes or masks."""
        if not len(task.truth.image_ids):
            return _nothing(task)
        judge = matched(task)
        judge.accumulate()
        counted = judge.eval
        assert counted is not None
        return PrecisionRecall(
            precision=np.asarray(counted["precision"], np.float64),
            recall=np.asarray(counted["recall"], np.float64),
            category_ids=task.category_ids,
            max_detections=task.max_detections,
        )


def matched(task: APTask, *, all_areas: bool = True) -> hotcoco.COCOeval:
    """Detections matched to objects, image by image, not yet accumulated.

    Args:
        task: whose overlaps are of boxes or masks.
        all_areas: small, medium and large objects apart as well.
    """
    truth = _truth(task)
    found = _found(task, truth)
    judge = hotcoco.COCOeval(truth, found, _kind(task), lvis_style=task.federated)
    judge.params.max_dets = list(task.max_detections)
    judge.params.img_ids = [image["id"] for image in task.truth.images]
    judge.params.cat_ids = [category.id for category in task.truth.categories]
    judge.params.use_cats = not task.class_agnostic
    if not all_areas:
        judge.params.area_rng = judge.params.area_rng[:1]
        judge.params.area_rng_lbl = judge.params.area_rng_lbl[:1]
    judge.evaluate()
    return judge


def _kind(task: APTask) -> str:
    return "bbox" if task.results.masks is None else "segm"


def _truth(task: APTask) -> hotcoco.COCO:
    truth = task.truth
    categories: list[dict[str, Any]] = []
    for category in truth.categories:
        row: dict[str, Any] = {"id": category.id, "name": category.name}
        if task.federated:
            row["frequency"] = category.group
        categories.append(row)
    boxes = truth.boxes if truth.boxes is not None else np.zeros((len(truth.image_ids), 4))
    return hotcoco.COCO.from_arrays(
        [_image(image, task.federated) for image in truth.images],
        categories,
        truth.image_ids,
        truth.category_ids,
        boxes,
        ids=np.arange(1, len(truth.image_ids) + 1),
        area=truth.areas,
        iscrowd=truth.crowd.astype(np.int64),
        segmentation=truth.segmentations,
    )


def _image(image: Any, federated: bool) -> dict[str, Any]:
    names = ["id", "height", "width"]
    if federated:
        names += ["neg_category_ids", "not_exhaustive_category_ids"]
    return {name: image[name] for name in names if image.get(name) is not None}


def _found(task: APTask, truth: hotcoco.COCO) -> hotcoco.COCO:
    results = task.results
    count = len(results.scores)
    boxes = np.zeros((count, 4)) if results.boxes is None else results.boxes
    rows = np.column_stack([results.image_ids, boxes, results.scores, results.category_ids])
    masks = cast(list[dict[str, Any] | list[list[float]]] | None, results.masks)
    found = truth.load_res(rows.astype(np.float64), segmentation=masks)
    found.update_anns(ids=np.arange(1, count + 1), area=results.areas)
    # The cap of the protocol is applied already, and the one of a plain result would come on top.
    return found.cap_detections_per_image(None)


def _nothing(task: APTask) -> PrecisionRecall:
    """No object: nothing can be said of any class."""
    classes, limits = len(task.category_ids), len(task.max_detections)
    return PrecisionRecall(
        precision=np.full((10, 101, classes, 4, limits), -1.0),
        recall=np.full((10, classes, 4, limits), -1.0),
        category_ids=task.category_ids,
        max_detections=task.max_detections,
    )
