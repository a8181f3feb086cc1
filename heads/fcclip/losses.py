"""The loss of FC-CLIP: set prediction with names scored against text embeddings.

It is Mask2Former's (arXiv:2112.01527, sections 3.3 and 4.1); every decoder layer is supervised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.fcclip.matching import assign, pair_costs, sample_points
from heads.fcclip.proposals import Proposals
from ovperception.training.step_counts import objects_of_part

if TYPE_CHECKING:
    from ovperception.text import TextClassifier
    from ovperception.training.targets import Targets

__all__ = ["LossSettings", "set_losses"]

Pair = tuple[Tensor, Tensor]
"""Queries and the objects they answer for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """Weights and sampling; the defaults are the published ones.

    Attributes:
        class_weight, mask_weight, dice_weight: of the three terms, in matching and in the loss.
        void_weight: of the class term where nothing is.
        points: points a mask is compared at.
        oversampling: how many times `points` are drawn to choose the uncertain ones from.
        uncertain_share: share of the points taken where the prediction is least certain.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    void_weight: float = 0.1
    points: int = 12_544
    oversampling: float = 3.0
    uncertain_share: float = 0.75


class _ClassLogits(Protocol):
    def class_logits(self, query_embeddings: Tensor, text: TextClassifier) -> Tensor: ...


def set_losses(
    head: _ClassLogits,
    proposals: Proposals,
    targets: list[Targets],
    text: TextClassifier,
    settings: LossSettings,
) -> dict[str, Tensor]:
    """Class, mask and dice losses, summed over the decoder's layers.

    Args:
        head: Names query embeddings.
        proposals: Of L layers for B images.
        targets: B truths.
        text: The training vocabulary.
        settings: Weights and sampling.

    Returns:
        ``class``, ``mask`` and ``dice``, weighted.
    """
    objects = max(objects_of_part(targets), 1)
    masks = [t.masks.float() for t in targets]  # every layer samples them
    class_logits = head.class_logits(proposals.query_embeddings, text)
    layers = class_logits.shape[1]
    costs = [
        pair_costs(
            class_logits[b, layer],
            proposals.mask_logits[b, layer],
            t.class_ids,
            masks[b],
            class_weight=settings.class_weight,
            mask_weight=settings.mask_weight,
            dice_weight=settings.dice_weight,
            points=settings.points,
        )
        for b, t in enumerate(targets)
        for layer in range(layers)
    ]
    found = assign(costs)
    pairs = [found[start : start + layers] for start in range(0, len(found), layers)]
    losses = {"class": settings.class_weight * _class_loss(class_logits, targets, pairs, settings)}
    queries = class_logits.shape[2]
    predicted = proposals.masks_of(
        [torch.cat([q + layer * queries for layer, (q, _) in enumerate(own)]) for own in pairs]
    )
    truths = [(masks[b], o) for b, own in enumerate(pairs) for _, o in own]
    entropy, dice = _mask_losses(predicted, truths, settings)
    losses["mask"] = settings.mask_weight * entropy.sum() / objects
    losses["dice"] = settings.dice_weight * dice.sum() / objects
    return losses


def _class_loss(
    logits: Tensor, targets: list[Targets], pairs: list[list[Pair]], settings: LossSettings
) -> Tensor:
    """Of (B, L, Q, K + 1) logits; each layer's is a mean, whose weights are those of every other."""
    void = logits.shape[-1] - 1
    wanted = torch.full(logits.shape[:3], void, dtype=torch.long, device=logits.device)
    for b, own in enumerate(pairs):
        for layer, (queries, objects) in enumerate(own):
            wanted[b, layer, queries] = targets[b].class_ids[objects]
    weight = torch.ones(void + 1, device=logits.device)
    weight[void] = settings.void_weight
    entropy = F.cross_entropy(logits.flatten(0, 2).float(), wanted.flatten(), weight, reduction="sum")
    # The weights of a part of the step: of its own queries if it is the whole step, else of the mean part.
    without_query = sum(len(t.class_ids) - len(own[0][0]) for t, own in zip(targets, pairs, strict=True))
    matched = max(objects_of_part(targets) - without_query, 0)
    queries_of_part = len(logits) * logits.shape[2]
    return entropy / (matched + settings.void_weight * max(queries_of_part - matched, 0))


def _mask_losses(
    predicted: Tensor, truths: list[tuple[Tensor, Tensor]], settings: LossSettings
) -> tuple[Tensor, Tensor]:
    """Cross entropy and dice of N matched pairs, (N,) each, at points that favour the undecided.

    Args:
        predicted: (N, h, w) logits.
        truths: The masks of an image and which of them are meant; N in all.
        settings: Of the sampling.
    """
    if not len(predicted):
        nothing = predicted.sum((1, 2))
        return nothing, nothing
    with torch.no_grad():
        points = _uncertain_points(predicted, settings)
        parts = points.split([len(chosen) for _, chosen in truths])
        wanted = torch.cat(
            [sample_points(masks[chosen], own) for (masks, chosen), own in zip(truths, parts, strict=True)]
        )
    logits = sample_points(predicted, points)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(-1)
    probability = logits.sigmoid()
    total = probability.sum(-1) + wanted.sum(-1)
    dice = 1 - (2 * (probability * wanted).sum(-1) + 1) / (total + 1)
    return entropy, dice


def _uncertain_points(predicted: Tensor, settings: LossSettings) -> Tensor:
    """(N, P, 2): mostly where |logit| is smallest, the rest anywhere (PointRend, section 3.1)."""
    count = len(predicted)
    drawn = torch.rand(count, int(settings.points * settings.oversampling), 2, device=predicted.device)
    certainty = sample_points(predicted, drawn).abs()
    chosen = int(settings.points * settings.uncertain_share)
    nearest = certainty.topk(chosen, dim=1, largest=False).indices
    uncertain = drawn.gather(1, nearest[..., None].expand(-1, -1, 2))
    anywhere = torch.rand(count, settings.points - chosen, 2, device=predicted.device)
    return torch.cat((uncertain, anywhere), dim=1)
