"""A segment for every pixel: masks compete, and what is left of them must be most of what they were."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ovperception.head import MaskScores
from ovperception.images import Geometry
from ovperception.postprocess.checks import check_classes, check_unit
from ovperception.postprocess.pixel_owners import PanopticRule, share_pixels
from ovperception.structures import PanopticMap, Segment
from ovperception.vocabulary import Vocabulary

__all__ = ["panoptic"]


@torch.inference_mode()
def panoptic(
    scores: MaskScores,
    geometry: Geometry,
    vocabulary: Vocabulary,
    *,
    score_threshold: float = 0.0,
    overlap_threshold: float = 0.8,
    rule: PanopticRule = "pixels",
) -> PanopticMap:
    """Give every pixel to one mask, or to none.

    A mask takes part if its best class is not "void" and scores above the threshold. Masks of which less
    than `overlap_threshold` is left to them vanish. All masks of one stuff class are one segment.

    Args:
        scores: One image's.
        geometry: Of that image.
        vocabulary: The K classes; tells things from stuff, and may hold thresholds of single classes.
        score_threshold: For classes without one of their own, 0-1.
        overlap_threshold: 0-1.
        rule: Who owns a pixel (`ovperception.postprocess.pixel_owners`); ``pixels`` is the published one.

    Returns:
        Segments numbered from 1 in the order of the queries; the score of merged stuff is its highest.

    Raises:
        InvalidParameter: A threshold is out of range or the scores are of another number of classes.
    """
    check_unit(score_threshold=score_threshold, overlap_threshold=overlap_threshold)
    check_classes(scores.probabilities.shape[1] - 1, vocabulary)
    best, labels = scores.probabilities.max(dim=1)
    limits = best.new_tensor([*vocabulary.score_thresholds(score_threshold), 1.0])
    kept = ((labels != len(vocabulary)) & (best > limits[labels])).nonzero()[:, 0]
    best, labels = best[kept], labels[kept]
    things = torch.tensor(vocabulary.is_thing, device=best.device)[labels]
    logits = scores.mask_logits[kept]
    owners = share_pixels(logits, best, things, geometry, rule, overlap_threshold)
    count = len(kept)
    visible = np.bincount(owners.ids.ravel(), minlength=count)
    masks = [
        (query, score, label, int(visible[query]))
        for query, (score, label) in enumerate(zip(best.tolist(), labels.tolist(), strict=True))
        if visible[query] and owners.left[query] >= overlap_threshold
    ]
    ids, segments = _merge(masks, count, vocabulary)
    return PanopticMap(classes=vocabulary.names, ids=ids[owners.ids], segments=segments)


def _merge(
    masks: Iterable[tuple[int, float, int, int]], count: int, vocabulary: Vocabulary
) -> tuple[NDArray[np.int32], tuple[Segment, ...]]:
    """Number the masks; those of one stuff class become one segment.

    Args:
        masks: Query, score, label and area of each.
        count: How many queries there are.
        vocabulary: Tells things from stuff.

    Returns:
        The segment of each query, 0 for those not among the masks and, last, for no query; the segments.
    """
    ids = np.zeros(count + 1, np.int32)
    segments: list[Segment] = []
    stuff: dict[int, int] = {}
    for query, score, label, area in masks:
        if label in stuff:
            first = segments[stuff[label] - 1]
            segments[first.id - 1] = replace(first, score=max(first.score, score), area=first.area + area)
            ids[query] = first.id
            continue
        ids[query] = number = len(segments) + 1
        is_thing = vocabulary.classes[label].is_thing
        if not is_thing:
            stuff[label] = number
        segments.append(Segment(id=number, class_id=label, score=score, area=area, is_thing=is_thing))
    return ids, tuple(segments)
