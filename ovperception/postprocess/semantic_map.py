"""A class for every pixel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ovperception.errors import InvalidParameter
from ovperception.head import MaskScores, PixelScores
from ovperception.images import Geometry
from ovperception.postprocess.checks import check_classes, check_unit
from ovperception.postprocess.resize import Resizer, Window, tiles
from ovperception.structures import SemanticMap
from ovperception.vocabulary import Vocabulary

__all__ = ["semantic"]

_NEGLIGIBLE = 1e-6
"""What leaving queries out of a tile may change in any class score of it."""

_TILE_BYTES = 2**24
"""Scratch memory a tile; about what stays in a processor's cache."""


@torch.inference_mode()
def semantic(
    scores: MaskScores | PixelScores,
    geometry: Geometry,
    vocabulary: Vocabulary,
    *,
    score_threshold: float = 0.0,
) -> SemanticMap:
    """The best class of every pixel.

    Masks vote with their class probabilities, weighed by how sure the mask is of the pixel (MaskFormer,
    arXiv:2107.06278, equation 3); the sums are not normalised. Pixel logits are resized as logits; their
    score is the softmax over the classes.

    Args:
        scores: One image's.
        geometry: Of that image.
        vocabulary: The K classes.
        score_threshold: Pixels below it are left undecided (-1).

    Raises:
        InvalidParameter: The scores are of another number of classes, or are of no kind that has a map.
    """
    check_unit(score_threshold=score_threshold)
    if isinstance(scores, MaskScores):
        found, grid, device = (
            scores.probabilities.shape[1] - 1,
            scores.mask_logits.shape[-2:],
            scores.mask_logits,
        )
        per_pixel = len(scores.probabilities) + found
    elif isinstance(scores, PixelScores):
        found, grid, device = len(scores.logits), scores.logits.shape[-2:], scores.logits
        per_pixel = 2 * found
    else:
        raise InvalidParameter("Boxes cannot be made a map", got=type(scores).__name__)
    check_classes(found, vocabulary)
    resizer = Resizer(geometry, (grid[0], grid[1]), device.device)
    labels = np.empty(geometry.original, np.int32)
    best = np.empty(geometry.original, np.float32)
    for window in tiles(geometry.original, _TILE_BYTES // (4 * per_pixel)):
        if isinstance(scores, MaskScores):
            values, classes = _vote(scores, resizer.cells(scores.mask_logits, window), resizer, window)
        else:
            logits = resizer(scores.logits, window).flatten(1)
            peak, classes = logits.max(dim=0)
            values = (peak - logits.logsumexp(dim=0)).exp()
        area = np.s_[window.top : window.bottom, window.left : window.right]
        labels[area] = classes.view(window.size).cpu().numpy()
        best[area] = values.view(window.size).cpu().numpy()
    labels[best < score_threshold] = -1
    return SemanticMap(classes=vocabulary.names, labels=labels, scores=best)


def _vote(scores: MaskScores, cells: Tensor, resizer: Resizer, window: Window) -> tuple[Tensor, Tensor]:
    """Best score and class of a window's pixels, each (pixels,)."""
    weights = scores.probabilities[:, :-1]
    # A pixel is never surer than the surest cell it is made from.
    reach = cells.amax(dim=(1, 2)).sigmoid() * weights.amax(dim=1)
    order = reach.argsort()
    skipped = int((reach[order].cumsum(0) <= _NEGLIGIBLE).sum())
    kept = order[skipped:].sort().values
    sure = resizer.expand(cells[kept], window).sigmoid_().flatten(1)
    best = (sure.T @ weights[kept]).max(dim=1)
    return best.values, best.indices
