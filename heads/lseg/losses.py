"""The loss of LSeg: every pixel against the text of its class (arXiv:2201.03546, equation 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ovperception.errors import InvalidParameter
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovperception.text import TextClassifier
    from ovperception.training.targets import Targets

__all__ = ["LossSettings", "apart", "candidates", "class_map", "pixel_text_loss"]

IGNORED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """Weight and sampling.

    Attributes:
        weight: of the cross entropy.
        pixels: pixels of an image that are compared, drawn anew each time among those that have a class;
            None: all of them, as published.
        balance: how much likelier pixels of small segments are drawn: by the area of their class in the
            image to the power of minus this; 0: all alike, 1: as many of each class.
        candidates: classes that a step chooses from: those in its images and others, drawn anew each time;
            None: the whole vocabulary, as published.
        frozen: weight of the same cross entropy of what is read of the frozen CLIP alone, so that pixels
            learn where to read whatever else they learn.
        keep: weight of the cosine distance to what the frozen CLIP says, where it is read.
    """

    weight: float = 1.0
    pixels: int | None = None
    balance: float = 0.0
    candidates: int | None = None
    frozen: float = 0.0
    keep: float = 0.0

    def __post_init__(self) -> None:
        """Refuse counts and weights that are none."""
        for name in ("pixels", "candidates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidParameter(f"{name} are counted from 1", field=name, got=value)
        for name in ("weight", "balance", "frozen", "keep"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InvalidParameter(f"{name} must not be negative", field=name, got=getattr(self, name))


def class_map(target: Targets, size: tuple[int, int]) -> Tensor:
    """(H, W) int64, the class of every pixel, or -1; where masks overlap the last one counts."""
    labels = torch.full(size, IGNORED, dtype=torch.long, device=target.class_ids.device)
    for class_id, mask in zip(target.class_ids, target.masks, strict=True):
        labels[mask] = class_id
    return labels


def candidates(text: TextClassifier, present: Tensor, count: int) -> tuple[TextClassifier, Tensor]:
    """Some of the classes: those that must be among them, and others by chance.

    Args:
        text: K classes.
        present: (P,) classes that must be among them.
        count: How many are wanted.

    Returns:
        Their classifier, and (K + 1,) the new index of each class, or -1; the last one is that of class -1.
    """
    total = len(text)
    rank = torch.rand(total, device=present.device)
    rank[present] = -1
    wanted = min(max(count, len(present)), total)
    chosen = rank.topk(wanted, largest=False).indices.sort().values
    counts = torch.tensor(text.synonym_counts, device=present.device)
    member = torch.zeros(total, dtype=torch.bool, device=present.device)
    member[chosen] = True
    kept = member.repeat_interleave(counts).to(text.embeddings.device)
    classes = tuple(text.vocabulary.classes[i] for i in chosen.tolist())
    few = replace(text, embeddings=text.embeddings[kept], vocabulary=Vocabulary(classes=classes))
    index = torch.full((total + 1,), IGNORED, device=present.device)
    index[chosen] = torch.arange(wanted, device=present.device)
    return few, index


def apart(embeddings: Tensor, plain: Tensor) -> Tensor:
    """Mean cosine distance of (B, D, h, w) embeddings of unit length from the frozen ones."""
    return 1 - (embeddings * plain.detach()).sum(1).mean()


def pixel_text_loss(
    logits_of: Callable[[Tensor, TextClassifier], Tensor],
    embeddings: Tensor,
    targets: list[Targets],
    text: TextClassifier,
    size: tuple[int, int],
    settings: LossSettings,
    *,
    whole_maps: bool,
) -> Tensor:
    """Cross entropy of the pixels that have a class.

    Args:
        logits_of: (B, D, h, w) embeddings and K classes to (B, K, h, w) logits.
        embeddings: (B, D, h, w) on a grid whose corners are those of the network input.
        targets: B truths; a class that is not in `text` is -1 and ignored, never a negative.
        text: The training vocabulary.
        size: (height, width) of the network input.
        settings: Weight and sampling.
        whole_maps: Whether `logits_of` looks at neighbours, so that pixels cannot be sampled before it.

    Returns:
        A scalar, without its weight; zero, with a gradient, where no pixel has a class.
    """
    truth = torch.stack([class_map(t, size) for t in targets]).to(embeddings.device)
    if settings.candidates is not None:
        present = truth.unique()
        text, index = candidates(text, present[present != IGNORED], settings.candidates)
        truth = index[truth]
    if settings.pixels is not None and not whole_maps:
        places, truth = _sample(truth, settings.pixels, settings.balance)
        embeddings = _read_at(embeddings, places)
        logits = logits_of(embeddings, text)
    else:
        logits = F.interpolate(logits_of(embeddings, text), size=size, mode="bilinear", align_corners=True)
    known = truth != IGNORED
    entropy = F.cross_entropy(logits.float(), truth, ignore_index=IGNORED, reduction="sum")
    return entropy / known.sum().clamp(min=1)


def _sample(truth: Tensor, count: int, balance: float) -> tuple[Tensor, Tensor]:
    """(B, H, W) classes -> places (B, P, 2) as (x, y), 0-1 from corner to corner, and classes (B, 1, P)."""
    height, width = truth.shape[1:]
    flat = truth.flatten(1)
    known = (flat != IGNORED).float()
    if balance:
        areas = torch.stack([(row + 1).bincount(minlength=int(truth.max()) + 2) for row in flat])
        known = known * areas.gather(1, flat + 1).float().pow(-balance)
    # An image without any class still needs places; their class is -1.
    chosen = torch.multinomial(known + 1e-12, min(count, height * width), replacement=False)
    rows, columns = chosen // width, chosen % width
    places = torch.stack((columns / max(width - 1, 1), rows / max(height - 1, 1)), dim=-1)
    return places.to(torch.float32), flat.gather(1, chosen)[:, None]


def _read_at(maps: Tensor, places: Tensor) -> Tensor:
    """(B, D, h, w) and places (B, P, 2) as (x, y), 0 to 1 from corner to corner -> (B, D, 1, P), bilinear.

    `grid_sample` with aligned corners; of numbers that lie side by side, whose gradient stays so.
    """
    images, _, height, width = maps.shape
    last = places.new_tensor((width - 1, height - 1))
    position = places * last
    first = position.floor().clamp(max=last)
    right, below = (position - first).unbind(-1)
    x, y = first.long().unbind(-1)
    column = torch.stack((x, (x + 1).clamp(max=width - 1)), dim=-1)  # (B, P, 2)
    row = torch.stack((y, (y + 1).clamp(max=height - 1)), dim=-1) * width
    image = torch.arange(images, device=maps.device)[:, None, None, None] * (height * width)
    corners = image + row[..., :, None] + column[..., None, :]  # (B, P, 2, 2)
    shares = (
        torch.stack((1 - below, below), -1)[..., :, None] * torch.stack((1 - right, right), -1)[..., None, :]
    )
    found = maps.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, corners.flatten())
    found = found.view(*corners.shape[:2], 4, -1) * shares.flatten(2)[..., None].to(found)
    return found.sum(2).transpose(1, 2)[:, :, None]
