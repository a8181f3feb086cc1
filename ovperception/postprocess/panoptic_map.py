"""A segment for every pixel: masks compete, and what is left of them must be most of what they were."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovperception.head import MaskScores
from ovperception.images import Geometry
from ovperception.postprocess.checks import check_classes, check_unit
from ovperception.postprocess.resize import Resizer, tiles
from ovperception.postprocess.winners import highest
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
) -> PanopticMap:
    """Give every pixel to one mask (MaskFormer, arXiv:2107.06278, section 3.4).

    A mask takes part if its best class is not "void" and scores above the threshold. A pixel goes to the mask
    whose score times its own sureness is highest, if that mask is sure at all (0.5). Masks of which less
    than `overlap_threshold` is left to them vanish. All masks of one stuff class are one segment.

    Args:
        scores: One image's.
        geometry: Of that image.
        vocabulary: The K classes; tells things from stuff, and may hold thresholds of single classes.
        score_threshold: For classes without one of their own, 0-1.
        overlap_threshold: 0-1.

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
    winners, sure, areas = _compete(scores.mask_logits[kept], best, geometry)
    count = len(kept)
    won = np.bincount(winners.ravel(), minlength=count)
    visible = np.bincount(winners[sure], minlength=count)
    masks = [
        (query, score, label, int(visible[query]))
        for query, (score, label) in enumerate(zip(best.tolist(), labels.tolist(), strict=True))
        if visible[query] and won[query] / areas[query] >= overlap_threshold
    ]
    ids, segments = _merge(masks, count, vocabulary)
    return PanopticMap(classes=vocabulary.names, ids=ids[np.where(sure, winners, count)], segments=segments)


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


def _compete(
    logits: Tensor, best: Tensor, geometry: Geometry
) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int64]]:
    """The winner of every pixel, whether it is sure of it, and the area each mask would have alone."""
    winners = np.zeros(geometry.original, np.int32)
    sure = np.zeros(geometry.original, np.bool_)
    areas = torch.zeros(len(best), dtype=torch.int64, device=best.device)
    if len(best) == 0:
        return winners, sure, areas.cpu().numpy()
    maps = logits.permute(1, 2, 0).contiguous()
    resizer = Resizer(geometry, (maps.shape[0], maps.shape[1]), maps.device)
    for window in tiles(geometry.original, maps.device):
        cells = resizer.cells(maps, window)
        active = _contenders(cells, best)
        if len(active) < len(best):
            cells = cells[..., active]
        values = resizer.expand(cells, window).sigmoid_()  # (pixels, active)
        scratch = torch.empty_like(values)
        # Ones and zeros in float: sums of them are exact, and vectorised where those of bool are not.
        areas[active] += torch.ge(values, 0.5, out=scratch).sum(dim=0).long()
        winner = highest(torch.mul(values, best[active], out=scratch))
        area = np.s_[window.top : window.bottom, window.left : window.right]
        winners[area] = active[winner].view(window.size).cpu().numpy()
        sure[area] = (values.gather(1, winner) >= 0.5).view(window.size).cpu().numpy()
    return winners, sure, areas.cpu().numpy()


def _contenders(cells: Tensor, best: Tensor) -> Tensor:
    """Indices of the masks that can win or hold a pixel of a window, by the extremes of their cells."""
    highest = cells.amax(dim=(0, 1)).sigmoid()
    guaranteed = (cells.amin(dim=(0, 1)).sigmoid() * best).amax()
    slack = 1e-5  # the extremes bound the interpolated values up to rounding
    can_win = highest * best >= guaranteed * (1 - slack)
    return (can_win | (highest >= 0.5 - slack)).nonzero()[:, 0]
