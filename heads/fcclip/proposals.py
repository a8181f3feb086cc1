"""What every layer of the mask decoder proposes, for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Proposals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposals:
    """The masks and embeddings of L layers for B images.

    All masks are needed to match and to pool, a few to be compared with the truth. So all are computed
    without gradients, and those few again with.

    Attributes:
        mask_logits: (B, L, Q, h, w), without gradients.
        mask_embeddings: (B, L, Q, C), whose products with `mask_features` the logits are.
        mask_features: (B, C, h, w).
        query_embeddings: (B, L, Q, D) of unit length; `FCCLIP.class_logits` names them.
    """

    mask_logits: Tensor
    mask_embeddings: Tensor
    mask_features: Tensor
    query_embeddings: Tensor

    def masks_of(self, chosen: Sequence[Tensor]) -> Tensor:
        """Mask logits with gradients.

        Args:
            chosen: Of each image the queries, as indices into its L * Q.

        Returns:
            (N, h, w), image after image.
        """
        # Unbound once, so that the gradients of the images are written side by side instead of added.
        images = zip(self.mask_embeddings.flatten(1, 2), self.mask_features.flatten(2).unbind(), strict=True)
        masks = [embeddings[rows] @ cells for (embeddings, cells), rows in zip(images, chosen, strict=True)]
        return torch.cat(masks).unflatten(1, self.mask_features.shape[-2:])  # type: ignore[no-any-return]
