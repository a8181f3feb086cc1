"""Scores, geometries and words to test post-processing with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ovperception.head import MaskScores
from ovperception.images import Geometry
from ovperception.vocabulary import Vocabulary, VocabularyClass

GEOMETRIES = [
    Geometry(original=(64, 96), resized=(64, 96), padded=(64, 96)),
    Geometry(original=(50, 83), resized=(60, 90), padded=(64, 96)),
    Geometry(original=(150, 211), resized=(61, 86), padded=(64, 96)),
    Geometry(original=(7, 5), resized=(64, 46), padded=(64, 96)),
    Geometry(original=(1, 1), resized=(1, 1), padded=(64, 96)),
]


def vocabulary(classes: int, stuff: int = 0) -> Vocabulary:
    return Vocabulary(
        classes=tuple(
            VocabularyClass(name=f"class {i}", is_thing=i < classes - stuff) for i in range(classes)
        )
    )


def mask_scores(queries: int = 20, classes: int = 5, grid: tuple[int, int] = (16, 24)) -> MaskScores:
    noise = torch.randn(1, queries, *(-(-g // 4) for g in grid))
    smooth = F.interpolate(noise, size=grid, mode="bicubic", align_corners=False)[0] * 6 - 2
    probabilities = (torch.randn(queries, classes + 1) * 3).softmax(-1)
    return MaskScores(probabilities=probabilities, mask_logits=smooth)


def full(logits: Tensor, geometry: Geometry) -> Tensor:
    """All masks at full resolution, in the reference's two steps."""
    padded = F.interpolate(logits[None], size=geometry.padded, mode="bilinear", align_corners=False)
    picture = padded[..., : geometry.resized[0], : geometry.resized[1]]
    return F.interpolate(picture, size=geometry.original, mode="bilinear", align_corners=False)[0]


WHOLE = Geometry(original=(4, 4), resized=(4, 4), padded=(4, 4))


def halves() -> Tensor:
    """Left half, right half, everything weakly."""
    left = torch.full((4, 4), -9.0)
    left[:, :2] = 9.0
    return torch.stack((left, -left, torch.full((4, 4), 0.5)))
