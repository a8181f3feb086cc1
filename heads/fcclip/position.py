"""Where each cell of a map is: sine encodings and reference points, cached per size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["reference_points", "sine_encoding"]


@lru_cache(maxsize=32)
def sine_encoding(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """(1, height * width, dim) sinusoids, half for y then half for x (DETR, arXiv:2005.12872).

    Coordinates run from 1 / n to 1 of a full turn; sine and cosine of a frequency are neighbours.
    """
    # Cached tensors outlive an inference_mode block and may meet autograd later.
    with torch.inference_mode(False), torch.no_grad():
        channel = torch.arange(dim // 2, dtype=torch.float32, device=device)
        period = 10000 ** (2 * torch.div(channel, 2, rounding_mode="floor") / (dim // 2))
        waves = []
        for size in (height, width):
            step = torch.arange(1, size + 1, dtype=torch.float32, device=device)
            phase = (step / (size + 1e-6) * (2 * math.pi))[:, None] / period
            waves.append(torch.stack((phase[:, 0::2].sin(), phase[:, 1::2].cos()), dim=-1).flatten(1))
        rows = waves[0][:, None].expand(-1, width, -1)
        columns = waves[1][None].expand(height, -1, -1)
        return torch.cat((rows, columns), dim=-1).view(1, height * width, dim)


def reference_points(spatial_shapes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """(S, 2) centre (x, y) of every cell of every level, 0-1."""
    return _reference_points(tuple((int(h), int(w)) for h, w in spatial_shapes), device)


@lru_cache(maxsize=32)
def _reference_points(spatial_shapes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        points = []
        for height, width in spatial_shapes:
            y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
            x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
            grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
            points.append(torch.stack((grid_x, grid_y), dim=-1).view(-1, 2))
        return torch.cat(points)
