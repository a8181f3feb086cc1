"""Masks as objects: the best pairs of mask and class, each cut out and run-length encoded where it is.

In two halves: what needs the device, which leaves the pixels of each mask, and what needs none, which writes
them down. A server has the first done by the thread that owns the device, and the second by another.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from ovperception.head import MaskScores
from ovperception.images import Geometry
from ovperception.postprocess.checks import check_classes, check_count, check_unit
from ovperception.postprocess.cut_masks import CutMask, cut_out
from ovperception.structures import Detections
from ovperception.vocabulary import Vocabulary

__all__ = ["draft_instances", "instances", "mask_boxes"]

_CANDIDATES = 10


def instances(
    scores: MaskScores,
    geometry: Geometry,
    vocabulary: Vocabulary,
    *,
    score_threshold: float = 0.0,
    max_detections: int = 100,
    things_only: bool = False,
    iou_threshold: float | None = None,
) -> Detections:
    """The masks of the highest class probabilities, one a pair of mask and class.

    The score of a pair is its class probability times the mean sureness of the mask inside itself. Boxes are
    those of the masks, where the reference leaves zeros; masks without a pixel are left out, where the
    reference lists them with a score of 0.

    Args:
        scores: One image's.
        geometry: Of that image.
        vocabulary: The K classes; may hold thresholds of single classes.
        score_threshold: On the final score, for classes without a threshold of their own, 0-1.
        max_detections: Pairs at most returned.
        things_only: Drop stuff, after the best pairs were chosen, as the reference does when it evaluates.
        iou_threshold: Drop a pair whose box overlaps a better one of the same class by more than this, 0-1;
            ten times as many pairs are considered, so that those dropped take no place. None: keep all, and
            consider no more than are returned, as the reference does.

    Raises:
        InvalidParameter: A threshold or count is out of range or the scores are of another number of classes.
    """
    return draft_instances(
        scores,
        geometry,
        vocabulary,
        score_threshold=score_threshold,
        max_detections=max_detections,
        things_only=things_only,
        iou_threshold=iou_threshold,
    )()


@torch.inference_mode()
def draft_instances(
    scores: MaskScores,
    geometry: Geometry,
    vocabulary: Vocabulary,
    *,
    score_threshold: float = 0.0,
    max_detections: int = 100,
    things_only: bool = False,
    iou_threshold: float | None = None,
) -> Callable[[], Detections]:
    """The half of `instances` that needs the device; what is returned does the other, once, on any thread."""
    check_unit(score_threshold=score_threshold, iou_threshold=1 if iou_threshold is None else iou_threshold)
    check_count("max_detections", max_detections)
    classes = len(vocabulary)
    check_classes(scores.probabilities.shape[1] - 1, vocabulary)
    flat = scores.probabilities[:, :-1].flatten()
    considered = max_detections if iou_threshold is None else _CANDIDATES * max_detections
    top, pairs = flat.topk(min(considered, len(flat)))
    queries, labels = pairs // classes, pairs % classes
    # The mean sureness is at most 1: what is below its threshold already is not looked at.
    keep = top >= top.new_tensor(vocabulary.score_thresholds(score_threshold))[labels]
    if things_only:
        keep &= torch.tensor(vocabulary.is_thing, device=keep.device)[labels]
    top, queries, labels = top[keep], queries[keep], labels[keep]
    cut = cut_out(scores.mask_logits, queries, geometry)
    kept = [i for i, q in enumerate(queries.tolist()) if q in cut]
    masks = [cut[q] for q in queries[kept].tolist()]
    final = top[kept].float().cpu().numpy() * np.array([mask.sureness for mask in masks], np.float32)
    class_ids = labels[kept].cpu().numpy().astype(np.int64)

    def finish() -> Detections:
        order = _order(final, class_ids, masks, vocabulary, score_threshold, iou_threshold)[:max_detections]
        return Detections(
            size=geometry.original,
            classes=vocabulary.names,
            boxes=np.array([masks[i].box for i in order], np.float32).reshape(-1, 4),
            scores=final[order],
            class_ids=class_ids[order],
            masks=tuple(masks[i].rle() for i in order),
        )

    return finish


@torch.inference_mode()
def mask_boxes(mask_logits: Tensor, geometry: Geometry) -> NDArray[np.float32]:
    """The boxes of one image's masks, whatever is in them.

    Args:
        mask_logits: (Q, h, w), on a grid that covers the padded network input.
        geometry: Of that image.

    Returns:
        (N, 4) xyxy pixels of the presented image, in the order of the masks; masks without a pixel have none.
    """
    cut = cut_out(mask_logits, torch.arange(len(mask_logits)), geometry)
    return np.array([cut[q].box for q in sorted(cut)], np.float32).reshape(-1, 4)


def _order(
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int64],
    masks: list[CutMask],
    vocabulary: Vocabulary,
    score_threshold: float,
    iou_threshold: float | None,
) -> NDArray[np.intp]:
    """Indices of what is returned, best first."""
    limits = np.array(vocabulary.score_thresholds(score_threshold), np.float32)
    passing = np.flatnonzero(scores >= limits[class_ids])
    order = passing[np.argsort(-scores[passing], kind="stable")]
    if iou_threshold is None or len(order) == 0:
        return order
    boxes = torch.tensor([masks[i].box for i in order], dtype=torch.float32)
    kept = batched_nms(
        boxes, torch.from_numpy(scores[order]), torch.from_numpy(class_ids[order]), iou_threshold
    )
    chosen: NDArray[np.intp] = order[kept.numpy()]
    return chosen
