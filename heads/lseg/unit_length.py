"""Embeddings of unit length, with a gradient in two passes over the map instead of ten."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["unit_length"]

_EPSILON = 1e-12
"""The shortest length that anything is divided by, as in `torch.nn.functional.normalize`."""


def unit_length(maps: Tensor) -> Tensor:
    """(B, D, h, w) -> the same of unit length over D; fast where the numbers of a pixel lie side by side."""
    rows = maps.permute(0, 2, 3, 1)
    unit: Tensor = _UnitLength.apply(rows)
    return unit.permute(0, 3, 1, 2)


class _UnitLength(torch.autograd.Function):
    """`x / |x|` over the last dimension.

    Its gradient is what of the result's lies across the result, divided by the length. Autograd would take
    the quotient and the norm apart and read the whole map for each of their factors.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        shrink = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(_EPSILON).reciprocal()
        unit: Tensor = x * shrink
        ctx.save_for_backward(unit, shrink)
        return unit

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        unit, shrink = ctx.saved_tensors
        along = (grads[0] * unit).sum(-1, keepdim=True)
        return torch.addcmul(grads[0], unit, along, value=-1).mul_(shrink)
