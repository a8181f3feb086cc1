"""The field's protocols on our own world, which needs no download."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from eval.protocols.protocol import AP, PQ, EvaluationProtocol, MeanIoU, Metric
from ovperception.datasets.vocabularies.files import Part

if TYPE_CHECKING:
    from ovperception.head import Task

__all__ = ["scenes_protocols"]


_OPEN_WORDS: tuple[Part, ...] = ("base", "novel")
_FREQUENCIES: tuple[Part, ...] = ("r", "c", "f")
_COCO_BOX = AP(kind="coco", iou="bbox")
_COCO_MASK = AP(kind="coco", iou="segm")
_LVIS_BOX = AP(kind="lvis", iou="bbox", max_detections=300)
_LVIS_MASK = AP(kind="lvis", iou="segm", max_detections=300)


def scenes_protocols() -> Iterator[EvaluationProtocol]:
    """All of them: one vocabulary of 659 things and 8 stuffs is asked at once."""
    yield _row("coco_box", "COCO, boxes", _COCO_BOX)
    yield _row("coco_mask", "COCO, masks", _COCO_MASK)
    yield _row(
        "ov_coco", "OV-COCO, boxes", replace(_COCO_BOX, generalized=True), _OPEN_WORDS, headline="AP50_novel"
    )
    yield _row("lvis_box", "LVIS, boxes", _LVIS_BOX, _FREQUENCIES)
    yield _row("lvis_mask", "LVIS, masks", _LVIS_MASK, _FREQUENCIES)
    fixed = replace(_LVIS_BOX, fixed=True, max_detections=None)
    yield _row("lvis_box_fixed", "LVIS, boxes, fixed AP", fixed, _FREQUENCIES)
    for name, title, metric in (
        ("ov_lvis_box", "OV-LVIS, boxes", _LVIS_BOX),
        ("ov_lvis_mask", "OV-LVIS, masks", _LVIS_MASK),
    ):
        yield _row(name, title, replace(metric, generalized=True), _OPEN_WORDS, headline="AP_novel")
    parts: tuple[Part, ...] = ("things", "stuff", *_OPEN_WORDS)
    yield _row("panoptic", "COCO panoptic", PQ(), parts, task="panoptic", headline="PQ")
    yield _row("semantic", "ADE-style", MeanIoU(), _OPEN_WORDS, task="semantic", headline="mIoU")


def _row(
    name: str,
    title: str,
    metric: Metric,
    groups: tuple[Part, ...] = (),
    *,
    task: Task = "detect",
    headline: str = "AP",
) -> EvaluationProtocol:
    return EvaluationProtocol(
        name=f"scenes_{name}",
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
