"""The line that stands beside a number, with everything that must be the same to compare it."""

from __future__ import annotations

from eval.protocols.protocol import AP, PQ, EvaluationProtocol, MeanIoU

__all__ = ["report_line"]

_IOU = {"bbox": "box", "segm": "mask", "boundary": "boundary"}


def report_line(
    protocol: EvaluationProtocol,
    *,
    images: int,
    vocabulary_hash: str,
    engine: str,
    split: str | None = None,
    templates: str | None = None,
    resolution: str | None = None,
    augmentation: str = "none",
) -> str:
    """One line: data, split, images, metric and rules, words, resolution, engine.

    Args:
        protocol: that was followed.
        images: how many were judged.
        vocabulary_hash: `Vocabulary.content_hash`; "" of an annotation file's own categories.
        engine: what computed the numbers, with its version, such as ``hotcoco 1.3.0``.
        split: if not the protocol's.
        templates: what was used in fact, if the model's own or another set.
        resolution: what was used in fact, if not the protocol's.
        augmentation: at test time, such as ``flip``.
    """
    used_templates = templates or protocol.templates or "the model's own"
    used_resolution = resolution or (str(protocol.resolution) if protocol.resolution else "the model's own")
    if protocol.window and resolution is None:
        used_resolution += f", {protocol.window}"
    words = protocol.asked or protocol.vocabulary
    if protocol.asked_part:
        words += f" ({protocol.asked_part} alone)"
    words = f"{words}, {vocabulary_hash[:12]}" if vocabulary_hash else "the annotation file's own"
    return "; ".join(
        (
            f"{protocol.data} {split or protocol.split}, {images:,} images",
            *_metric(protocol),
            f"background {protocol.background}",
            f"not judged: {protocol.ignore}",
            f"words {words}",
            f"templates {used_templates}, {protocol.words_rule}",
            f"resolution {used_resolution}",
            f"test-time augmentation {augmentation}",
            f"by {engine}",
        )
    )


def _metric(protocol: EvaluationProtocol) -> tuple[str, ...]:
    metric = protocol.metric
    if isinstance(metric, AP) and metric.kind == "voc":
        return (f"AP (PASCAL VOC, {metric.curve}, IoU 0.5)",)
    if isinstance(metric, AP) and metric.kind == "cityscapes":
        return ("mask AP (Cityscapes)", f"detections an image: {metric.max_detections or 'no limit'}")
    if isinstance(metric, AP):
        kind = "COCO" if metric.kind == "coco" else f"LVIS {'fixed' if metric.fixed else 'standard'}"
        parts = {None: (), True: ("generalized",), False: ("not generalized",)}[metric.generalized]
        limit = "no limit" if metric.max_detections is None else f"{metric.max_detections}"
        return (f"{_IOU[metric.iou]} AP ({kind})", *parts, f"detections an image: {limit}")
    if isinstance(metric, MeanIoU):
        edges = (f"boundary IoU {metric.boundary}",) if metric.boundary else ()
        return (f"mIoU averaged as {metric.averaging}", *edges)
    if isinstance(metric, PQ):
        return ("PQ (panopticapi)",)
    return ("mIoU of the fold and FB-IoU (HSNet)",)
