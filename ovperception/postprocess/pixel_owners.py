"""Which mask owns each pixel of a panoptic map, by either of two rules.

``pixels`` (MaskFormer, arXiv:2107.06278, section 3.4): a pixel goes to the mask whose score times its own
sureness of that pixel is highest, if that mask is sure at all (0.5).

``masks`` (Panoptic Segmentation, arXiv:1801.00868, section 7): things come in turn, the best first by score
times mean sureness, and take what they cover of what is free; stuff shares out the rest among itself. Where
scores differ much from mask to mask, as over hundreds of names, the first rule lets a surely named neighbour
eat the edges of a doubtful one; this one does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovperception.images import Geometry
from ovperception.postprocess.cut_masks import cut_out
from ovperception.postprocess.resize import Resizer, tiles
from ovperception.postprocess.winners import highest

__all__ = ["Owners", "PanopticRule", "share_pixels"]

PanopticRule = Literal["pixels", "masks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owners:
    """Who owns what.

    Attributes:
        ids: (H, W) int32 index of the mask, or the number of masks where none is sure.
        left: (N,) what is left to each mask, as a share of what it would have alone, 0-1; NaN if nothing.
    """

    ids: NDArray[np.int32]
    left: NDArray[np.float64]


def share_pixels(
    mask_logits: Tensor,
    scores: Tensor,
    is_thing: Tensor,
    geometry: Geometry,
    rule: PanopticRule,
    least: float,
) -> Owners:
    """Share out the pixels of one image.

    Args:
        mask_logits: (N, h, w).
        scores: (N,) of each mask, 0-1.
        is_thing: (N,) bool.
        geometry: Of the image.
        rule: By which.
        least: Things of which less than this share is free are passed over (rule ``masks``).
    """
    if rule == "pixels":
        return _compete(mask_logits, scores, geometry)
    count = len(scores)
    things, stuff = is_thing.nonzero()[:, 0], (~is_thing).nonzero()[:, 0]
    owners = _in_turn(mask_logits, scores, things, geometry, least)
    rest = _compete(mask_logits[stuff], scores[stuff], geometry)
    numbers = np.append(stuff.cpu().numpy(), count).astype(np.int32)
    owners.left[numbers[:-1]] = rest.left
    free = owners.ids == count
    owners.ids[free] = numbers[rest.ids[free]]
    return owners


def _in_turn(mask_logits: Tensor, scores: Tensor, things: Tensor, geometry: Geometry, least: float) -> Owners:
    """Things take what is free, the best first; ties go to the first of the masks."""
    ids = np.full(geometry.original, len(scores), np.int32)
    left = np.full(len(scores), np.nan)
    cut = cut_out(mask_logits, things, geometry)
    ranks = {q: scores[q].item() * mask.sureness for q, mask in cut.items()}
    for query in sorted(cut, key=lambda q: (-ranks[q], q)):
        mask = cut[query]
        x1, y1, x2, y2 = mask.box
        area = ids[y1:y2, x1:x2]
        pixels = mask.pixels()
        free = pixels & (area == len(scores))
        left[query] = np.count_nonzero(free) / np.count_nonzero(pixels)
        if left[query] >= least:
            area[free] = query
    return Owners(ids=ids, left=left)


def _compete(logits: Tensor, best: Tensor, geometry: Geometry) -> Owners:
    """Every pixel goes to its winner; what a mask is left counts what it wins without being sure of it."""
    winners = np.zeros(geometry.original, np.int32)
    sure = np.zeros(geometry.original, np.bool_)
    areas = torch.zeros(len(best), dtype=torch.int64, device=best.device)
    if len(best) == 0:
        return Owners(ids=winners, left=np.zeros(0))
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
    count = len(best)
    with np.errstate(invalid="ignore", divide="ignore"):  # masks without a pixel
        left = np.bincount(winners.ravel(), minlength=count) / areas.cpu().numpy()
    return Owners(ids=np.where(sure, winners, np.int32(count)), left=left)


def _contenders(cells: Tensor, best: Tensor) -> Tensor:
    """Indices of the masks that can win or hold a pixel of a window, by the extremes of their cells."""
    highest = cells.amax(dim=(0, 1)).sigmoid()
    guaranteed = (cells.amin(dim=(0, 1)).sigmoid() * best).amax()
    slack = 1e-5  # the extremes bound the interpolated values up to rounding
    can_win = highest * best >= guaranteed * (1 - slack)
    return (can_win | (highest >= 0.5 - slack)).nonzero()[:, 0]
