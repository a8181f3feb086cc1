"""A protocol's data, words and resolution with another metric: ``coco_mask:boundary``, ``coco_box:voc``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from eval.protocols.protocol import AP, EvaluationProtocol, MeanIoU, Metric
from ovperception.errors import InvalidParameter

__all__ = ["METRIC_NAMES", "with_metric"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Other:
    """What a name stands for, where a protocol's own metric has it; None where it has not."""

    title: str
    headline: str
    of_ap: Mapping[str, object] | None = None
    of_labels: Mapping[str, object] | None = None


_VOC = {"kind": "voc", "iou": "bbox", "fixed": False, "max_detections": None}
_OTHERS = {
    "box": _Other(title="boxes judged", headline="", of_ap={"iou": "bbox"}),
    "mask": _Other(title="masks judged", headline="", of_ap={"iou": "segm"}),
    "boundary": _Other(
        title="boundaries judged", headline="", of_ap={"iou": "boundary"}, of_labels={"boundary": "per class"}
    ),
    "boundary_detectron2": _Other(
        title="boundaries judged as detectron2 does", headline="", of_labels={"boundary": "detectron2"}
    ),
    "voc": _Other(title="PASCAL VOC's AP by area", headline="mAP", of_ap=_VOC | {"curve": "area"}),
    "voc_2007": _Other(
        title="PASCAL VOC's AP by 11 points", headline="mAP", of_ap=_VOC | {"curve": "11 points"}
    ),
}
METRIC_NAMES = tuple(_OTHERS)


def with_metric(protocol: EvaluationProtocol, name: str) -> EvaluationProtocol:
    """The protocol with another metric, called ``<protocol>:<name>``.

    No number was published under such a name: data and words are the protocol's, the rules are not.

    Args:
        protocol: whose metric is AP or mIoU.
        name: ``box``, ``mask``, ``boundary`` (AP of min(mask IoU, boundary IoU), or boundary mIoU beside
            mIoU), ``boundary_detectron2`` (what its `SemSegEvaluator` prints), ``voc`` or ``voc_2007``.

    Raises:
        InvalidParameter: there is no such metric, or not of what the protocol asks for.
    """
    other = _OTHERS.get(name)
    changed = _changed(protocol.metric, other) if other else None
    if other is None or changed is None:
        fitting = [known for known, row in _OTHERS.items() if _changed(protocol.metric, row) is not None]
        raise InvalidParameter(
            "There is no such metric" if other is None else f"{protocol.name} has no answers of that kind",
            field="metric",
            expected=f"one of {', '.join(fitting)}" if fitting else "none but the protocol's own",
            got=repr(name),
        )
    headline = "boundary_mIoU" if isinstance(changed, MeanIoU) else other.headline or protocol.headline
    return replace(
        protocol,
        name=f"{protocol.name}:{name}",
        title=f"{protocol.title}; {other.title}",
        metric=changed,
        headline=headline,
    )


def _changed(metric: Metric, other: _Other) -> Metric | None:
    if isinstance(metric, AP) and other.of_ap is not None:
        if metric.kind == "lvis" and "kind" in other.of_ap:
            return None  # VOC's rules know no class that is not annotated everywhere
        own = {"kind": "coco"} if metric.kind == "cityscapes" else {}
        return replace(metric, **{**own, **other.of_ap})  # type: ignore[arg-type]  # a table of its own fields
    if isinstance(metric, MeanIoU) and other.of_labels is not None:
        return replace(metric, **other.of_labels)  # type: ignore[arg-type]
    return None
