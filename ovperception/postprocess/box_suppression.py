"""Scored boxes to detections: threshold, suppression within a class, the best ones."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from ovperception.head import BoxScores
from ovperception.images import Geometry
from ovperception.postprocess.checks import check_classes, check_count, check_unit
from ovperception.structures import Detections
from ovperception.vocabulary import Vocabulary

__all__ = ["boxes", "soft_nms"]


@torch.inference_mode()
def boxes(
    scores: BoxScores,
    geometry: Geometry,
    vocabulary: Vocabulary,
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
    suppression: Literal["hard", "soft"] = "hard",
    objectness: Literal["ignore", "rank", "multiply"] = "ignore",
) -> Detections:
    """Detections of one image.

    Every pair of a box and a class above its threshold is a candidate; candidates suppress each other within
    a class only.

    Args:
        scores: One image's.
        geometry: Of that image.
        vocabulary: The K classes; may hold thresholds of single classes.
        score_threshold: Candidates must be above it, 0-1.
        iou_threshold: Hard suppression removes what overlaps a better box by more than this, 0-1.
        max_detections: How many of the best are returned.
        suppression: "hard" removes, "soft" lowers scores (`soft_nms`).
        objectness: What the proposals' raw logits do. "multiply": the score is the geometric mean of both, as
            RegionCLIP scores: above 1 for a logit above 1, and a box of negative logit vanishes. "rank": that
            decides who survives and in which order, but the class score is reported.

    Raises:
        InvalidParameter: A threshold, count or option is out of range, or the scores are of another number
            of classes.
    """
    check_unit(score_threshold=score_threshold, iou_threshold=iou_threshold)
    check_count("max_detections", max_detections)
    check_classes(scores.scores.shape[1], vocabulary)
    ranks = reported = scores.scores.float()
    if objectness != "ignore" and scores.objectness is not None:
        ranks = (ranks * scores.objectness.float()[:, None]).sqrt()
        reported = reported if objectness == "rank" else ranks
    per_class = scores.boxes.float()
    if per_class.ndim == 2:
        per_class = per_class[:, None].expand(-1, ranks.shape[1], -1)
    usable = ranks.isfinite().all(dim=1) & per_class.isfinite().all(dim=2).all(dim=1)
    limits = ranks.new_tensor(
        [score_threshold if c.score_threshold is None else c.score_threshold for c in vocabulary.classes]
    )
    rows, labels = ((ranks > limits) & usable[:, None]).nonzero(as_tuple=True)
    candidates = _clip(per_class[rows, labels], geometry.resized)
    ranked = ranks[rows, labels]
    if suppression == "hard":
        kept = batched_nms(candidates, ranked, labels, iou_threshold)
        kept_scores = reported[rows, labels][kept]
    else:
        kept, lowered = soft_nms(candidates, ranked, labels)
        kept_scores = lowered if objectness != "rank" else reported[rows, labels][kept]
    kept, kept_scores = kept[:max_detections], kept_scores[:max_detections]
    found = geometry.boxes_to_original(candidates[kept].cpu().numpy())
    # A box outside of the picture has no area left.
    real = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    return Detections(
        size=geometry.original,
        classes=vocabulary.names,
        boxes=found[real],
        scores=kept_scores.cpu().numpy()[real],
        class_ids=labels[kept].cpu().numpy().astype(np.int64)[real],
    )


def soft_nms(
    candidates: Tensor, scores: Tensor, labels: Tensor, *, sigma: float = 0.5, prune: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Gaussian soft suppression within each class (Soft-NMS, arXiv:1704.04503, equation 3).

    Args:
        candidates: (N, 4) xyxy.
        scores: (N,).
        labels: (N,) class of each.
        sigma: Width: an overlap of IoU o multiplies a score by exp(-o * o / sigma).
        prune: Candidates whose score falls to this or below are dropped.

    Returns:
        Indices of what is left, and their lowered scores; highest first.
    """
    kept: list[Tensor] = []
    lowered: list[Tensor] = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero()[:, 0]
        current = scores[members].clone()
        overlap = box_iou(candidates[members], candidates[members])
        decay = torch.exp(-overlap.square() / sigma)
        alive = current > prune
        while bool(alive.any()):
            best = torch.where(alive, current, -torch.inf).argmax()
            kept.append(members[best])
            lowered.append(current[best].clone())
            alive[best] = False
            current = torch.where(alive, current * decay[best], current)
            alive &= current > prune
    if not kept:
        return labels.new_zeros(0), scores.new_zeros(0)
    values, order = torch.stack(lowered).sort(descending=True, stable=True)
    return torch.stack(kept)[order], values


def _clip(candidates: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    limit = candidates.new_tensor([width, height, width, height])
    return torch.minimum(candidates.clamp(min=0), limit)
