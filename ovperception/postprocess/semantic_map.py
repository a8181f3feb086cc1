"""A class for every pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovperception.errors import InvalidParameter
from ovperception.head import MaskScores, PixelScores, TextPixelScores
from ovperception.images import Geometry
from ovperception.postprocess.checks import check_classes, check_unit
from ovperception.postprocess.resize import Resizer, Window, tiles
from ovperception.postprocess.running_softmax import best_of_many
from ovperception.postprocess.winners import highest
from ovperception.structures import SemanticMap
from ovperception.vocabulary import Vocabulary

__all__ = ["semantic"]

_HELD, _HELD_ON_DEVICE = 2**23, 2**27
"""Logits of pixel scores on their grid that are held at once, on a CPU and elsewhere."""

_NEGLIGIBLE = 1e-6
"""What leaving queries out of a tile may change in any class score of it."""


@torch.inference_mode()
def semantic(
    scores: MaskScores | PixelScores | TextPixelScores,
    geometry: Geometry,
    vocabulary: Vocabulary,
    *,
    score_threshold: float = 0.0,
) -> SemanticMap:
    """The best class of every pixel.

    Masks vote with their class probabilities, weighed by how sure the mask is of the pixel (MaskFormer,
    arXiv:2107.06278, equation 3); the sums are not normalised. Pixel logits are resized as logits; their
    score is the softmax over the classes. Memory is bounded by the picture and one tile of it, whatever the
    number of classes.

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
        classes = scores.probabilities.shape[1] - 1
        windows = tiles(geometry.original, scores.mask_logits.device, maps=classes)
        judge = _votes(scores, geometry)
    elif isinstance(scores, PixelScores | TextPixelScores):
        classes = scores.classes
        windows, judge = _logits(scores, geometry)
    else:
        raise InvalidParameter("Boxes cannot be made a map", got=type(scores).__name__)
    check_classes(classes, vocabulary)
    labels = np.empty(geometry.original, np.int32)
    best = np.empty(geometry.original, np.float32)
    for window in windows:
        found, values = judge(window)
        area = np.s_[window.top : window.bottom, window.left : window.right]
        labels[area] = found.view(window.size).cpu().numpy()
        best[area] = values.view(window.size).cpu().numpy()
    labels[best < score_threshold] = -1
    return SemanticMap(classes=vocabulary.names, labels=labels, scores=best)


_Judge = Callable[[Window], tuple[Tensor, Tensor]]
"""A window to class ids and their scores, one a pixel."""


def _votes(scores: MaskScores, geometry: Geometry) -> _Judge:
    maps = scores.mask_logits.permute(1, 2, 0).contiguous()
    resizer = Resizer(geometry, (maps.shape[0], maps.shape[1]), maps.device)
    weights = _padded(scores.probabilities[:, :-1])
    strongest = weights.amax(dim=1)

    def judge(window: Window) -> tuple[Tensor, Tensor]:
        votes = _vote(weights, strongest, resizer.cells(maps, window), resizer, window)
        found = highest(votes)  # never the padding: no vote is below its zeros, and the first one counts
        return found, votes.gather(1, found)

    return judge


def _logits(scores: PixelScores | TextPixelScores, geometry: Geometry) -> tuple[Iterator[Window], _Judge]:
    resizer = Resizer(geometry, scores.grid, scores.device, align_corners=scores.align_corners)
    most = _HELD if scores.device.type == "cpu" else _HELD_ON_DEVICE

    def judge(window: Window) -> tuple[Tensor, Tensor]:
        return best_of_many(scores.pieces(*resizer.region(window)), resizer, window)

    return resizer.windows(max(most // scores.together, 1)), judge


def _padded(weights: Tensor) -> Tensor:
    """(Q, K) -> (Q, K and a few columns of zeros): matrix products like multiples of 16, by a third."""
    return F.pad(weights, (0, -weights.shape[1] % 16)).contiguous()


def _vote(weights: Tensor, strongest: Tensor, cells: Tensor, resizer: Resizer, window: Window) -> Tensor:
    """(pixels, K) class scores of a window."""
    # A pixel is never surer than the surest cell it is made from.
    reach = cells.amax(dim=(0, 1)).sigmoid() * strongest
    ascending, order = reach.sort()
    skipped = int((ascending.cumsum(0) <= _NEGLIGIBLE).sum())
    if skipped:
        kept = order[skipped:]
        cells, weights = cells[..., kept], weights[kept]
    return resizer.expand(cells, window).sigmoid_() @ weights
