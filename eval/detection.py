"""Average precision of boxes and masks by COCO's own code, pycocotools.

Ten IoU thresholds from .50 to .95, 101 recall points, at most 100 detections an image and class; a mean is
over the classes that have ground truth. Masks are judged without the boxes in the record, as detectron2 does:
with them, areas by size would be those of the boxes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ovperception.datasets.scenes import SceneCategory, SceneSample
from ovperception.rle import RLE
from ovperception.structures import Detections

__all__ = ["MAX_DETECTIONS", "AveragePrecision", "DetectionEvaluator", "average_precision"]

Area = Literal["all", "small", "medium", "large"]
MAX_DETECTIONS = 100
"""An image and class, COCO's highest; there is no limit an image."""

_AREAS: tuple[Area, ...] = ("all", "small", "medium", "large")


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePrecision:
    """What COCOeval accumulated.

    Attributes:
        precision: (10, 101, K, 4) IoU threshold, recall point, class, area range; -1 where a class has no
            ground truth of that area.
        recall: (10, K, 4), the same without recall points.
        category_ids: (K,) id of each class that has annotations.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    category_ids: tuple[int, ...]

    def ap(
        self, categories: Collection[int] | None = None, *, iou: float | None = None, area: Area = "all"
    ) -> float | None:
        """Mean over the classes that have ground truth; None if none has.

        Args:
            categories: ids of the classes; None for all.
            iou: 0.5 to 0.95 by 0.05; None for the mean of all ten.
            area: of the objects, by COCO's limits 32 and 96 pixels squared.
        """
        return _mean(self._of(self.precision, categories, iou, area))

    def ar(self, categories: Collection[int] | None = None, *, area: Area = "all") -> float | None:
        """Mean of the highest recall over the ten IoU thresholds and the classes; None without any."""
        return _mean(self._of(self.recall, categories, None, area))

    def per_class(self, iou: float | None = None) -> dict[int, float | None]:
        """The AP of each class that has ground truth, by its id."""
        return {category: self.ap((category,), iou=iou) for category in self.category_ids}

    def _of(
        self,
        values: NDArray[np.float64],
        categories: Collection[int] | None,
        iou: float | None,
        area: Area,
    ) -> NDArray[np.float64]:
        chosen = values[..., _AREAS.index(area)]
        if categories is not None:
            wanted = frozenset(categories)
            chosen = chosen[..., [i for i, c in enumerate(self.category_ids) if c in wanted]]
        return chosen if iou is None else chosen[round((iou - 0.5) / 0.05)]


def _mean(values: NDArray[np.float64]) -> float | None:
    counted = values[values > -1]
    return float(np.mean(counted)) if counted.size else None


def average_precision(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], kind: Literal["bbox", "segm"]
) -> AveragePrecision:
    """Judge results against an annotation file.

    Args:
        ground_truth: content of a COCO instances file. Annotation ids start at 1: COCO's code takes id 0 for
            "no match".
        results: content of a COCO result file.
        kind: boxes or masks; for masks the boxes of the results are not looked at.
    """
    dropped = "bbox" if kind == "segm" else "segmentation"
    records = [{k: v for k, v in result.items() if k != dropped} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):  # both classes print
        truth = COCO()
        truth.dataset = dict(ground_truth)
        truth.createIndex()
        found = truth.loadRes(records) if records else _nothing(ground_truth)
        judge = COCOeval(truth, found, kind)
        # Classes without truth and other limits than the highest cost time and change no number asked for.
        judge.params.catIds = sorted({a["category_id"] for a in ground_truth["annotations"]})
        judge.params.maxDets = [MAX_DETECTIONS]
        judge.evaluate()
        judge.accumulate()
    return AveragePrecision(
        precision=judge.eval["precision"][..., -1],
        recall=judge.eval["recall"][..., -1],
        category_ids=tuple(int(i) for i in judge.params.catIds),
    )


def _nothing(ground_truth: Mapping[str, Any]) -> Any:
    """No detections at all, which `COCO.loadRes` does not take."""
    found = COCO()
    found.dataset = dict(ground_truth) | {"annotations": []}
    found.createIndex()
    return found


class DetectionEvaluator:
    """Collects truth and answers of scenes.

    Args:
        categories: the classes asked for, in the order of the answers' class ids; others in a scene are
            ignored.
    """

    def __init__(self, categories: Sequence[SceneCategory]) -> None:
        self._categories = tuple(categories)
        self._ids = [c.id for c in categories]
        self._things = frozenset(c.id for c in categories if c.is_thing)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._has_masks = True

    def add(self, sample: SceneSample, detections: Detections) -> None:
        """Takes one image; detections of stuff are dropped."""
        image_id = len(self._images) + 1
        height, width = sample.panoptic.shape
        self._images.append({"id": image_id, "height": height, "width": width})
        for segment in sample.things:
            if segment.category_id not in self._things:
                continue
            x0, y0, x1, y1 = segment.box
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": segment.category_id,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": RLE.encode(sample.mask(segment.id)).to_coco(),
                    "area": segment.area,
                    "iscrowd": 0,
                }
            )
        # A head that makes boxes only has no masks to judge, in whichever image it shows.
        self._has_masks &= detections.masks is not None
        self._results += [
            {**result}
            for result in detections.to_coco(image_id, self._ids)
            if result["category_id"] in self._things
        ]

    def metrics(self) -> dict[str, float | None]:
        """``box/...`` and ``segm/...``, 0-1; None where nothing can be said."""
        truth = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": c.id, "name": c.name} for c in self._categories if c.is_thing],
        }
        boxes = average_precision(truth, self._results, "bbox")
        masks = average_precision(truth, self._results, "segm") if self._has_masks else None
        return self._named("box", boxes) | self._named("segm", masks)

    def _named(self, kind: str, found: AveragePrecision | None) -> dict[str, float | None]:
        base = [c.id for c in self._categories if c.is_thing and not c.is_novel]
        novel = [c.id for c in self._categories if c.is_novel]
        rows: dict[str, Callable[[AveragePrecision], float | None]] = {
            "AP50": lambda f: f.ap(iou=0.5),
            "AP": lambda f: f.ap(),
            "AP75": lambda f: f.ap(iou=0.75),
            "AP50_base": lambda f: f.ap(base, iou=0.5),
            "AP50_novel": lambda f: f.ap(novel, iou=0.5),
            "AP_base": lambda f: f.ap(base),
            "AP_novel": lambda f: f.ap(novel),
            "APs": lambda f: f.ap(area="small"),
            "APm": lambda f: f.ap(area="medium"),
            "APl": lambda f: f.ap(area="large"),
            "AR100": lambda f: f.ar(),
        }
        return {f"{kind}/{name}": None if found is None else row(found) for name, row in rows.items()}
