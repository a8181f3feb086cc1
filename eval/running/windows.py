"""A class for every pixel, looked at window by window as mmsegmentation's ``slide`` mode does.

The picture is resized, every window is looked at on its own, what pixels score is averaged where windows
overlap, resized to the picture's own size, and the best class taken.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.protocols import Resolution, Window
from ovperception.structures import SemanticMap
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from ovperception.head import Scores
    from ovperception.images import Geometry
    from ovperception.model import Model

__all__ = ["resized_to", "semantic_by_windows", "window_starts"]

_ROWS = 64


def resized_to(image: NDArray[np.uint8], resolution: Resolution | None) -> NDArray[np.uint8]:
    """The picture at a resolution, (h, w, 3), bilinear."""
    if resolution is None:
        return image
    height, width = image.shape[:2]
    if resolution.square:
        size = (resolution.shortest_edge, resolution.shortest_edge)
    else:
        scale = resolution.shortest_edge / min(height, width)
        if resolution.longest_edge is not None:
            scale = min(scale, resolution.longest_edge / max(height, width))
        size = (int(height * scale + 0.5), int(width * scale + 0.5))
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def window_starts(length: int, window: Window) -> list[int]:
    """Where windows begin along a side; the last is shifted back to end with the picture."""
    count = max(math.ceil((length - window.size) / window.stride), 0) + 1
    return [max(min(n * window.stride, length - window.size), 0) for n in range(count)]


def semantic_by_windows(
    model: Model,
    image: NDArray[np.uint8],
    words: Vocabulary,
    *,
    resolution: Resolution | None,
    window: Window,
    score_threshold: float,
) -> SemanticMap:
    """The map of a picture.

    Args:
        model: whose preprocessing keeps the size of a window.
        image: (H, W, 3) uint8 RGB.
        words: the K classes.
        resolution: of the picture before it is cut.
        window: size and step.
        score_threshold: pixels whose best probability is below stay undecided, -1.
    """
    import torch

    picture = resized_to(image, resolution)
    height, width = picture.shape[:2]
    total = torch.zeros(len(words), height, width, device=model.device)
    seen = torch.zeros(height, width, device=model.device)
    logits = True
    for top in window_starts(height, window):
        for left in window_starts(width, window):
            area = np.s_[top : top + window.size, left : left + window.size]
            part = np.ascontiguousarray(picture[area])
            scene = model.encode(part)
            with torch.inference_mode():
                found, logits = _dense(scene.scores("semantic", words), scene.geometry)
                total[(slice(None), *area)] += found
                seen[area] += 1
    total /= seen
    size = (image.shape[0], image.shape[1])
    return _decided(total, size, words, score_threshold if score_threshold > 0 else 0.0, logits)


def _dense(scores: Scores, geometry: Geometry) -> tuple[Tensor, bool]:
    """(K, H, W) of the presented image, and whether they are logits rather than votes."""
    from ovperception.errors import Unsupported
    from ovperception.head import MaskScores, PixelScores, TextPixelScores
    from ovperception.postprocess.resize import Resizer
    from ovperception.postprocess.resize import Window as Part

    whole = Part(0, geometry.original[0], 0, geometry.original[1])
    if isinstance(scores, MaskScores):
        maps = scores.mask_logits.permute(1, 2, 0).contiguous()
        resizer = Resizer(geometry, (maps.shape[0], maps.shape[1]), maps.device)
        votes = resizer.expand(resizer.cells(maps, whole), whole).sigmoid() @ scores.probabilities[:, :-1]
        return votes.T.reshape(-1, *geometry.original), False
    if not isinstance(scores, PixelScores | TextPixelScores):
        raise Unsupported("This head gives no maps", field="task", got="semantic")
    resizer = Resizer(geometry, scores.grid, scores.device, align_corners=scores.align_corners)
    cells = scores.cells(*resizer.region(whole))
    return resizer.expand(cells, whole).T.reshape(-1, *geometry.original), True


def _decided(
    scores: Tensor, size: tuple[int, int], words: Vocabulary, least: float, logits: bool
) -> SemanticMap:
    """The best class at another size, a few rows at a time."""
    import torch

    from ovperception.images import Geometry
    from ovperception.postprocess.resize import Resizer
    from ovperception.postprocess.resize import Window as Part

    grid = (scores.shape[1], scores.shape[2])
    resizer = Resizer(Geometry(original=size, resized=grid, padded=grid), grid, scores.device)
    maps = scores.permute(1, 2, 0).contiguous()
    labels, best = np.empty(size, np.int32), np.empty(size, np.float32)
    with torch.inference_mode():
        for top in range(0, size[0], _ROWS):
            part = Part(top, min(top + _ROWS, size[0]), 0, size[1])
            values = resizer.expand(resizer.cells(maps, part), part)
            if logits:
                values = values.softmax(dim=1)
            winner = values.max(dim=1)
            labels[part.top : part.bottom] = winner.indices.view(part.size).cpu().numpy()
            best[part.top : part.bottom] = winner.values.view(part.size).cpu().numpy()
    labels[best < least] = -1
    return SemanticMap(classes=words.names, labels=labels, scores=cast("NDArray[np.float32]", best))
