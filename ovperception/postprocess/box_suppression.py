"""Scored boxes to detections: threshold, suppression within a class, the best ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from ovperception.head import BoxScores, ObjectnessRule
from ovperception.images import Geometry
from ovperception.postprocess.box_masks import draft_masks
from ovperception.postprocess.checks import check_classes, check_count, check_unit
from ovperception.structures import Detections
from ovperception.vocabulary import Vocabulary

__all__ = ["boxes", "draft_boxes", "soft_nms"]


def boxes(
    scores: BoxScores,
    geometry: Geometry,
    vocabulary: Vocabulary,
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
    segment: Callable[[Tensor], Tensor | None] | None = None,
) -> Detections:
    """Detections of one image.

    Every pair of a box and a class above its threshold is a candidate; candidates suppress each other within
    a class only. How they are ranked and suppressed is what `scores.rules` say. A box or score that is not
    finite takes its whole row away; boxes are cut to the picture before they suppress each other.

    Source: detectron2 `fast_rcnn_inference_single_image`, `detector_postprocess`.

    Args:
        scores: One image's.
        geometry: Of that image.
        vocabulary: The K classes; may hold thresholds of single classes.
        score_threshold: Candidates must be above it, 0-1; it is the ranking score that counts.
        iou_threshold: Hard suppression removes what overlaps a better box by more than this, 0-1.
        max_detections: How many of the best are returned.
        segment: Makes masks of (M, 4) boxes in pixels of the network input, (M, S, S) probabilities or None;
            asked once, for the boxes that are returned, each of them once.

    Raises:
        InvalidParameter: A threshold or count is out of range, or the scores are of another number of
            classes.
    """
    return draft_boxes(
        scores,
        geometry,
        vocabulary,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
        segment=segment,
    )()


@torch.inference_mode()
def draft_boxes(
    scores: BoxScores,
    geometry: Geometry,
    vocabulary: Vocabulary,
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
    segment: Callable[[Tensor], Tensor | None] | None = None,
) -> Callable[[], Detections]:
    """The half of `boxes` that needs the device; what is returned pastes the masks, on any thread."""
    check_unit(score_threshold=score_threshold, iou_threshold=iou_threshold)
    check_count("max_detections", max_detections)
    check_classes(scores.scores.shape[1], vocabulary)
    reported = scores.scores.float()
    ranks = _ranks(reported, scores.objectness, scores.rules.objectness)
    per_class = scores.boxes.float()
    if per_class.ndim == 2:
        per_class = per_class[:, None].expand(-1, ranks.shape[1], -1)
    usable = ranks.isfinite().all(dim=1) & per_class.isfinite().all(dim=2).all(dim=1)
    limits = ranks.new_tensor(vocabulary.score_thresholds(score_threshold))
    rows, labels = ((ranks > limits) & usable[:, None]).nonzero(as_tuple=True)
    candidates = _clip(per_class[rows, labels], geometry.resized)
    ranked = ranks[rows, labels]
    if scores.rules.suppression == "hard":
        kept = batched_nms(candidates, ranked, labels, iou_threshold)[:max_detections]
        final = ranked[kept]
    else:
        kept, final = soft_nms(candidates, ranked, labels, limit=max_detections)
    if scores.rules.report == "class":
        final = reported[rows, labels][kept]
    found = geometry.boxes_to_original(candidates[kept].cpu().numpy())
    # A box outside of the picture has no area left.
    real = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    kept = kept[torch.from_numpy(real).to(kept.device)]
    bare = Detections(
        size=geometry.original,
        classes=vocabulary.names,
        boxes=found[real],
        scores=final.cpu().numpy()[real],
        class_ids=labels[kept].cpu().numpy().astype(np.int64),
    )
    paste = None if segment is None else draft_masks(candidates[kept], segment, geometry)
    return lambda: bare if paste is None else replace(bare, masks=paste())


def _ranks(scores: Tensor, objectness: Tensor | None, rule: ObjectnessRule) -> Tensor:
    """(N, K) scores with the objectness in them; NaN where a score's negative logit has no root."""
    if objectness is None or rule == "none":
        return scores
    logits = objectness.float()[:, None]
    return (scores * (logits if rule == "sqrt_raw" else logits.sigmoid())).sqrt()


def soft_nms(
    candidates: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    sigma: float = 0.5,
    prune: float = 1e-3,
    limit: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Gaussian soft suppression within each class (Soft-NMS, arXiv:1704.04503, equation 3).

    Args:
        candidates: (N, 4) xyxy.
        scores: (N,).
        labels: (N,) class of each.
        sigma: Width: an overlap of IoU o multiplies a score by exp(-o * o / sigma).
        prune: Candidates whose score falls to this or below are dropped.
        limit: How many of the best are wanted; None: all.

    Returns:
        Indices of what is left, and their lowered scores; highest first.
    """
    current = torch.where(scores > prune, scores, -torch.inf)
    kept: list[Tensor] = []
    lowered: list[Tensor] = []
    # A score only ever falls, so the best of all that are left is next, whatever its class.
    while len(kept) < min(len(scores), len(scores) if limit is None else limit):
        best = current.argmax()
        if bool(current[best] <= prune):
            break
        kept.append(best)
        lowered.append(current[best].clone())
        overlap = box_iou(candidates[best][None], candidates)[0].nan_to_num()  # two boxes without area
        decay = torch.exp(-overlap.square() / sigma)
        current = torch.where(labels == labels[best], current * decay, current)
        current[best] = -torch.inf
        current[current <= prune] = -torch.inf
    if not kept:
        return labels.new_zeros(0), scores.new_zeros(0)
    return torch.stack(kept), torch.stack(lowered)


def _clip(candidates: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    limit = candidates.new_tensor([width, height, width, height])
    return torch.minimum(candidates.clamp(min=0), limit)
