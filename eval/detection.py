"""AP of the boxes and masks of scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eval.metrics import COCO_LIMITS, PrecisionRecall, score_coco
from ovperception.datasets.scenes import SceneCategory, SceneSample
from ovperception.rle import RLE
from ovperception.structures import Detections

__all__ = ["MAX_DETECTIONS", "DetectionEvaluator"]

MAX_DETECTIONS = COCO_LIMITS[-1]
"""An image and class, COCO's highest; there is no limit an image."""


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
        boxes = score_coco(truth, self._results).curves
        masks = score_coco(truth, self._results, iou="segm").curves if self._has_masks else None
        return self._named("box", boxes) | self._named("segm", masks)

    def _named(self, kind: str, found: PrecisionRecall | None) -> dict[str, float | None]:
        base = [c.id for c in self._categories if c.is_thing and not c.is_novel]
        novel = [c.id for c in self._categories if c.is_novel]
        rows: dict[str, Callable[[PrecisionRecall], float | None]] = {
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
