"""AP by pycocotools, with LVIS's federated rules and boundary overlaps added.

The federated rules are those of lvis-api 0.5.3 (`lvis/eval.py`), which itself no longer runs with numpy 1.24
and newer. Boundary AP takes the smaller of the masks' and their boundaries' IoU (Cheng et al. 2021).
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval.metrics.ap_engine import APTask
from eval.metrics.boundary import boundary_rle
from eval.metrics.precision_recall import PrecisionRecall

__all__ = ["PycocotoolsEngine", "matched"]


class PycocotoolsEngine:
    """See `APEngine`."""

    @property
    def label(self) -> str:
        """Name and version."""
        return f"pycocotools {version('pycocotools')}"

    def accumulate(self, task: APTask) -> PrecisionRecall:
        """Precision and recall of a task."""
        with contextlib.redirect_stdout(io.StringIO()):  # its classes print
            judge = _Judge(task)
            judge.evaluate()
            judge.accumulate()
        return PrecisionRecall(
            precision=judge.eval["precision"],
            recall=judge.eval["recall"],
            category_ids=task.category_ids,
            max_detections=task.max_detections,
        )


def matched(task: APTask) -> list[dict[str, Any] | None]:
    """Detections matched to objects, image by image, of all areas together."""
    with contextlib.redirect_stdout(io.StringIO()):
        judge = _Judge(task)
        judge.params.areaRng, judge.params.areaRngLbl = judge.params.areaRng[:1], judge.params.areaRngLbl[:1]
        judge.evaluate()
    return [row and {**row, "dtMatched": row["dtMatches"] > 0} for row in judge.evalImgs]


class _Judge(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """COCOeval on checked columns; its methods are overridden where LVIS and boundaries differ."""

    def __init__(self, task: APTask) -> None:
        kind = "bbox" if task.results.masks is None else "segm"
        super().__init__(_truth(task), _found(task), kind)
        self._task = task
        self.params.imgIds = [image["id"] for image in task.truth.images]
        self.params.catIds = [category.id for category in task.truth.categories]
        self.params.maxDets = list(task.max_detections)
        self.params.useCats = not task.class_agnostic
        self._unfinished = {
            image["id"]: frozenset(image.get("not_exhaustive_category_ids") or ())
            for image in task.truth.images
        }

    def _prepare(self) -> None:
        super()._prepare()
        if self._task.federated:
            looked_for: dict[int, set[int]] = defaultdict(set)
            for image_id, category_id in self._gts:
                looked_for[image_id].add(category_id)
            for image in self._task.truth.images:
                looked_for[image["id"]] |= set(image.get("neg_category_ids") or ())
            for image_id, category_id in list(self._dts):
                if category_id not in looked_for[image_id]:
                    del self._dts[image_id, category_id]

    def computeIoU(self, imgId: int, catId: int) -> Any:
        ious = super().computeIoU(imgId, catId)
        if self._task.iou != "boundary" or not len(ious):
            return ious
        p = self.params
        keys = [(imgId, catId)] if p.useCats else [(imgId, category) for category in p.catIds]
        truth = [row for key in keys for row in self._gts[key]]
        found = [row for key in keys for row in self._dts[key]]
        order = np.argsort([-row["score"] for row in found], kind="mergesort")[: p.maxDets[-1]]
        edges = mask_tools.iou(
            [boundary_rle(found[i]["segmentation"]) for i in order],
            [boundary_rle(row["segmentation"]) for row in truth],
            [int(row["iscrowd"]) for row in truth],
        )
        return np.minimum(ious, edges)

    def evaluateImg(self, imgId: int, catId: int, aRng: Any, maxDet: int) -> Any:
        row = super().evaluateImg(imgId, catId, aRng, maxDet)
        if row is not None and self._task.federated and catId in self._unfinished[imgId]:
            row["dtIgnore"] = np.logical_or(row["dtIgnore"], row["dtMatches"] == 0)
        return row


def _indexed(task: APTask, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": list(task.truth.images),
        "annotations": annotations,
        "categories": [{"id": c.id, "name": c.name} for c in task.truth.categories],
    }
    coco.createIndex()
    return coco


def _rows(
    image_ids: NDArray[np.int64], category_ids: NDArray[np.int64], areas: NDArray[np.float64]
) -> list[dict[str, Any]]:
    # Ids start at 1: pycocotools takes 0 for "no match".
    columns = zip(image_ids.tolist(), category_ids.tolist(), areas.tolist(), strict=True)
    return [
        {"id": i, "image_id": image, "category_id": category, "area": area, "iscrowd": 0}
        for i, (image, category, area) in enumerate(columns, start=1)
    ]


def _truth(task: APTask) -> COCO:
    truth = task.truth
    rows = _rows(truth.image_ids, truth.category_ids, truth.areas)
    for i, row in enumerate(rows):
        row["iscrowd"] = int(truth.crowd[i])
        if truth.segmentations is not None:
            row["segmentation"] = truth.segmentations[i]
        elif truth.boxes is not None:
            row["bbox"] = truth.boxes[i].tolist()
    return _indexed(task, rows)


def _found(task: APTask) -> COCO:
    results = task.results
    rows = _rows(results.image_ids, results.category_ids, results.areas)
    for i, (row, score) in enumerate(zip(rows, results.scores.tolist(), strict=True)):
        row["score"] = score
        if results.masks is not None:
            row["segmentation"] = results.masks[i]
        elif results.boxes is not None:
            row["bbox"] = results.boxes[i].tolist()
    return _indexed(task, rows)
