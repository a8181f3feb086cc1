"""The loss of LSeg: every pixel against the text of its class (arXiv:2201.03546, equation 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from ovperception.training.targets import Targets

__all__ = ["LossSettings", "class_map", "pixel_text_loss"]

IGNORED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """Weight and sampling.

    Attributes:
        weight: of the cross entropy.
        pixels: pixels of an image that are compared, drawn anew each time among those that have a class;
            None: all of them, as published.
    """

    weight: float = 1.0
    pixels: int | None = None

    def __post_init__(self) -> None:
        """Refuse a number of pixels that is none."""
        if self.pixels is not None and self.pixels < 1:
            raise InvalidParameter("Pixels are counted from 1", field="pixels", got=self.pixels)


def class_map(target: Targets, size: tuple[int, int]) -> Tensor:
    """(H, W) int64, the class of every pixel, or -1; where masks overlap the last one counts."""
    labels = torch.full(size, IGNORED, dtype=torch.long, device=target.class_ids.device)
    for class_id, mask in zip(target.class_ids, target.masks, strict=True):
        labels[mask] = class_id
    return labels


def pixel_text_loss(
    logits_of: Callable[[Tensor], Tensor],
    embeddings: Tensor,
    targets: list[Targets],
    size: tuple[int, int],
    settings: LossSettings,
    *,
    whole_maps: bool,
) -> dict[str, Tensor]:
    """Cross entropy of the pixels that have a class.

    Args:
        logits_of: (B, D, h, w) embeddings to (B, K, h, w) logits.
        embeddings: (B, D, h, w) on a grid whose corners are those of the network input.
        targets: B truths.
        size: (height, width) of the network input.
        settings: Weight and sampling.
        whole_maps: Whether `logits_of` looks at neighbours, so that pixels cannot be sampled before it.

    Returns:
        ``pixel``; zero, with a gradient, where no pixel has a class.
    """
    truth = torch.stack([class_map(t, size) for t in targets]).to(embeddings.device)
    if settings.pixels is not None and not whole_maps:
        places, truth = _sample(truth, settings.pixels)
        embeddings = F.grid_sample(embeddings, places, mode="bilinear", align_corners=True)
        logits = logits_of(embeddings)
    else:
        logits = F.interpolate(logits_of(embeddings), size=size, mode="bilinear", align_corners=True)
    known = truth != IGNORED
    entropy = F.cross_entropy(logits.float(), truth, ignore_index=IGNORED, reduction="sum")
    return {"pixel": settings.weight * entropy / known.sum().clamp(min=1)}


def _sample(truth: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(B, H, W) classes -> places (B, 1, P, 2) for `grid_sample` with aligned corners, classes (B, 1, P)."""
    height, width = truth.shape[1:]
    known = (truth.flatten(1) != IGNORED).float()
    # An image without any class still needs places; their class is -1.
    chosen = torch.multinomial(known + 1e-12, min(count, height * width), replacement=False)
    rows, columns = chosen // width, chosen % width
    places = torch.stack((columns / max(width - 1, 1), rows / max(height - 1, 1)), dim=-1) * 2 - 1
    return places[:, None].to(torch.float32), truth.flatten(1).gather(1, chosen)[:, None]
