"""The field's protocols on our own world, which needs no download."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from eval.protocols.protocol import AP, PQ, EvaluationProtocol, MeanIoU, Metric
from ovperception.datasets.vocabularies.files import Part

if TYPE_CHECKING:
    from ovperception.head import Task

__all__ = ["scenes_protocols"]


def scenes_protocols() -> Iterator[EvaluationProtocol]:
    """All of them: one vocabulary of 659 things and 8 stuffs is asked at once."""
    open_words: tuple[Part, ...] = ("base", "novel")
    frequencies: tuple[Part, ...] = ("r", "c", "f")
    rows: tuple[tuple[str, str, Task, Metric, str, tuple[Part, ...]], ...] = (
        ("coco_box", "COCO, boxes", "detect", AP(kind="coco", iou="bbox"), "AP", ()),
        ("coco_mask", "COCO, masks", "detect", AP(kind="coco", iou="segm"), "AP", ()),
        (
            "ov_coco",
            "OV-COCO, boxes",
            "detect",
            AP(kind="coco", iou="bbox", generalized=True),
            "AP50_novel",
            open_words,
        ),
        (
            "lvis_box",
            "LVIS, boxes",
            "detect",
            AP(kind="lvis", iou="bbox", max_detections=300),
            "AP",
            frequencies,
        ),
        (
            "lvis_mask",
            "LVIS, masks",
            "detect",
            AP(kind="lvis", iou="segm", max_detections=300),
            "AP",
            frequencies,
        ),
        (
            "lvis_box_fixed",
            "LVIS, boxes, fixed AP",
            "detect",
            AP(kind="lvis", iou="bbox", fixed=True, max_detections=None),
            "AP",
            frequencies,
        ),
        (
            "ov_lvis_box",
            "OV-LVIS, boxes",
            "detect",
            AP(kind="lvis", iou="bbox", max_detections=300, generalized=True),
            "AP_novel",
            open_words,
        ),
        (
            "ov_lvis_mask",
            "OV-LVIS, masks",
            "detect",
            AP(kind="lvis", iou="segm", max_detections=300, generalized=True),
            "AP_novel",
            open_words,
        ),
        ("panoptic", "COCO panoptic", "panoptic", PQ(), "PQ", ("things", "stuff", *open_words)),
        ("semantic", "ADE-style", "semantic", MeanIoU(averaging="detectron2"), "mIoU", open_words),
    )
    for short, title, task, metric, headline, groups in rows:
        yield EvaluationProtocol(
            name=f"scenes_{short}",
            title=f"scenes as {title}",
            data="scenes",
            split="val",
            vocabulary="scenes",
            task=task,
            metric=metric,
            headline=headline,
            groups=groups,
            source=("ovperception.datasets.scenes",),
            notes="heads train on boxes and masks of base classes; 111 of the 659 things are novel",
        )
