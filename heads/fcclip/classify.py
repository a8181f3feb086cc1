"""Naming the masks: a learned embedding a query, CLIP's own a mask, and how the two are combined.

Source: FC-CLIP (arXiv:2308.02487), sections 3.2 and 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.fcclip.config import FCCLIPConfig
from heads.fcclip.mask_decoder import MLP

if TYPE_CHECKING:
    from ovperception.text import TextClassifier

__all__ = ["QueryEmbedding", "class_logits", "combine", "pool_masks", "seen_classes"]


class QueryEmbedding(nn.Module):
    """The in-vocabulary branch: what lies under a query's mask, plus the query, in the CLIP space."""

    def __init__(self, config: FCCLIPConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.pool_norm = nn.LayerNorm(dim)
        self.pool_projection = nn.Linear(dim, dim)
        self.mlp = MLP(dim, dim, config.embed_dim)

    def forward(self, mask_features: Tensor, mask_logits: Tensor, state: Tensor) -> Tensor:
        """(B, C, h, w), (B, Q, h, w), (B, Q, C) -> (B, Q, D) of unit length."""
        pooled = pool_masks(mask_features, mask_logits)
        return F.normalize(self.mlp(self.pool_projection(self.pool_norm(pooled)) + state), dim=-1)


def pool_masks(features: Tensor, mask_logits: Tensor) -> Tensor:
    """Mean of the features where a mask's logit is positive; zeros for an empty mask.

    Args:
        features: (B, C, h, w).
        mask_logits: (B, Q, h, w); no gradient flows through the masks.

    Returns:
        (B, Q, C).
    """
    inside = (mask_logits.detach() > 0).flatten(2).to(features.dtype)
    # Divided before the sum, as the reference does; the constant keeps an empty mask finite.
    inside /= inside.sum(dim=-1, keepdim=True) + 1e-8
    # In this order the gradient of the features comes out as they lie.
    return (features.flatten(2) @ inside.mT).mT


def class_logits(embeddings: Tensor, void: Tensor, text: TextClassifier, scale: Tensor | float) -> Tensor:
    """Scaled cosine similarities: the best synonym of each class, and "void" last.

    Args:
        embeddings: (Q, D) of unit length.
        void: (D,) of unit length.
        text: The words.
        scale: Temperature, already exponentiated.

    Returns:
        (Q, K + 1).
    """
    scaled = scale * embeddings
    words = text.reduce(scaled @ text.embeddings.to(embeddings).T)
    return torch.cat((words, (scaled @ void)[:, None]), dim=-1)


def combine(
    learned: Tensor, clip: Tensor, seen: Tensor, valid: Tensor | None, *, config: FCCLIPConfig
) -> Tensor:
    """Class probabilities from both branches.

    Their softmaxes over the K classes are averaged geometrically, CLIP weighing more for classes not met in
    training; "void" is judged by the learned branch alone.

    Args:
        learned: (Q, K + 1) logits of the learned branch, "void" last.
        clip: (Q, K) logits of the CLIP branch.
        seen: (K,) bool, classes met in training.
        valid: (Q,) bool, masks that cover a cell of the CLIP grid; None to trust all.
        config: Holds the two weights.

    Returns:
        (Q, K + 1), rows sum to 1.
    """
    weight = torch.where(seen, config.seen_weight, config.unseen_weight).to(learned)
    if valid is not None:
        weight = weight * valid[:, None].to(weight)
    # In logarithms: the product of the powers underflows, and the reference then answers NaN.
    mixed = (1 - weight) * learned[:, :-1].log_softmax(-1) + weight * clip.log_softmax(-1)
    words = mixed.softmax(-1)
    void = learned.softmax(-1)[:, -1:]
    floored = torch.cat((words * (1 - void), void), dim=-1) + 1e-8
    return floored.log().softmax(-1)


def seen_classes(text: TextClassifier, seen_words: frozenset[str]) -> Tensor:
    """(K,) bool: the class shares a name or synonym, letter by letter, with the training vocabulary."""
    return torch.tensor(
        [not seen_words.isdisjoint(c.synonyms) for c in text.vocabulary.classes], dtype=torch.bool
    )
