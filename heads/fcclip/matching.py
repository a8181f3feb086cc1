"""Which query answers for which object: bipartite matching on sampled points (Mask2Former, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["assign", "pair_costs", "sample_points"]


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of N maps at P points each.

    Args:
        maps: (N, h, w).
        points: (N, P, 2) or (1, P, 2), x and y from 0 to 1 over the whole map.

    Returns:
        (N, P).
    """
    grid = (2 * points - 1)[:, :, None]
    # Points in common are worked out once when the maps are channels.
    images = maps[None] if len(points) == 1 else maps[:, None]
    return F.grid_sample(images.float(), grid, align_corners=False).view(len(maps), points.shape[1])


@torch.no_grad()
def pair_costs(
    class_logits: Tensor,
    mask_logits: Tensor,
    class_ids: Tensor,
    masks: Tensor,
    *,
    class_weight: float,
    mask_weight: float,
    dice_weight: float,
    points: int,
) -> Tensor:
    """What it costs that each query answers for each object of one image.

    The cost of a pair is the negative class probability, the point-wise cross entropy and the dice distance,
    weighted as in the loss.

    Args:
        class_logits: (Q, K + 1), "void" last.
        mask_logits: (Q, h, w).
        class_ids: (N,) int64.
        masks: (N, H, W) bool, or the same as numbers.
        class_weight: Weight of the class cost.
        mask_weight: Weight of the cross entropy.
        dice_weight: Weight of the dice distance.
        points: Points all pairs are compared at.

    Returns:
        (Q, N) float32, where the logits are.
    """
    if not len(class_ids):
        return mask_logits.new_zeros(len(mask_logits), 0, dtype=torch.float32)
    where = torch.rand(1, points, 2, device=mask_logits.device)
    # In full precision: a sum over thousands of points overflows float16, and bfloat16 rounds costs to ties.
    with torch.autocast(mask_logits.device.type, enabled=False):
        predicted = sample_points(mask_logits, where)  # (Q, P)
        truth = sample_points(masks, where)  # (N, P)
        # -log sigmoid(x) = softplus(-x): a pair's entropy is linear in the truth, so one matmul makes all.
        inside, outside = F.softplus(-predicted), F.softplus(predicted)
        entropy = (inside @ truth.T + outside @ (1 - truth).T) / points
        probability = predicted.sigmoid()
        overlap = 2 * probability @ truth.T
        total = probability.sum(-1)[:, None] + truth.sum(-1)[None]
        dice = 1 - (overlap + 1) / (total + 1)
        named = -class_logits.float().softmax(-1)[:, class_ids]
        return class_weight * named + mask_weight * entropy + dice_weight * dice


def assign(costs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The cheapest one-to-one assignment of each matrix; all of them are waited for once.

    Args:
        costs: (Q, N) each, N of its own.

    Returns:
        Query indices and object indices of each, both (min(Q, N),) int64, on the CPU.
    """
    # Any assignment will do for costs that are not finite: the loss will not be either, and is told.
    numbers = torch.cat([cost.flatten() for cost in costs]).nan_to_num(posinf=1e9, neginf=-1e9).cpu()
    parts = numbers.split([cost.numel() for cost in costs])
    pairs = []
    for cost, part in zip(costs, parts, strict=True):
        queries, objects = linear_sum_assignment(part.view(cost.shape).numpy())
        pairs.append((torch.as_tensor(queries), torch.as_tensor(objects)))
    return pairs
