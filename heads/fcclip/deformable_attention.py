"""Multi-scale deformable attention (Deformable DETR, arXiv:2010.04159, section 4.1) in plain torch.

Every query looks at a few points on every level. Bilinear interpolation makes each look a weighted sum of
four cells, so a whole head of a query is one weighted sum over `levels * points * 4` rows of a table. The
fast path computes the rows and weights once and sums them with one `embedding_bag`; `sample_by_grid` is the
same function written the obvious way, kept to be read and to test against.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["KERNELS", "DeformableAttention", "deformable_sampling", "sample_by_bags", "sample_by_grid"]

Shapes = Sequence[tuple[int, int]]
Kernel = Callable[[Tensor, Shapes, Tensor, Tensor], Tensor]


def deformable_sampling(
    value: Tensor, spatial_shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples, zero outside the maps.

    Args:
        value: (B, S, heads, channels), the levels one after the other, S = sum of h * w.
        spatial_shapes: (h, w) of each of the L levels.
        sampling_locations: (B, N, heads, L, points, 2) as (x, y); 0 to 1 spans a map from border to border.
        attention_weights: (B, N, heads, L, points).

    Returns:
        (B, N, heads * channels).
    """
    kernel = KERNELS.get(value.device.type, sample_by_bags)
    return kernel(value, spatial_shapes, sampling_locations, attention_weights)


def sample_by_grid(
    value: Tensor, spatial_shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """`deformable_sampling` with one `grid_sample` a level: the readable reference, several times slower."""
    images, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    total = value.new_zeros(images * heads, channels, queries)
    for level, cells in enumerate(value.split([h * w for h, w in spatial_shapes], dim=1)):
        height, width = spatial_shapes[level]
        maps = cells.permute(0, 2, 3, 1).reshape(images * heads, channels, height, width)
        grid = 2 * sampling_locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        samples = F.grid_sample(maps, grid, align_corners=False)  # (B heads, channels, N, points)
        weights = attention_weights[:, :, :, level].transpose(1, 2).reshape(images * heads, 1, queries, -1)
        total = total + (samples * weights).sum(-1)
    return total.view(images, heads * channels, queries).transpose(1, 2).contiguous()


def sample_by_bags(
    value: Tensor, spatial_shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """`deformable_sampling` as one weighted row sum over a table with a border of zeros around each map."""
    images, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    table, starts = _bordered_table(value, spatial_shapes)
    rows, (right, below) = _corner_rows(sampling_locations, spatial_shapes, starts, table.shape[1])
    attention = attention_weights.flatten(3)
    lower = attention * below
    upper = attention - lower
    lower_right, upper_right = lower * right, upper * right
    weights = torch.stack((upper - upper_right, upper_right, lower - lower_right, lower_right), dim=3)
    per_query = rows.numel() // (images * queries * heads)
    summed = _WeightedRows.apply(
        table.view(-1, channels), rows.view(-1, per_query), weights.view(-1, per_query)
    )
    return summed.view(images, queries, heads * channels)  # type: ignore[no-any-return]


def _bordered_table(value: Tensor, spatial_shapes: Shapes) -> tuple[Tensor, list[int]]:
    """Pad every map with a border of zeros, so that corners outside need no mask; and where each starts."""
    images, _, heads, channels = value.shape
    maps, starts, start = [], [], 0
    for cells, (height, width) in zip(
        value.split([h * w for h, w in spatial_shapes], dim=1), spatial_shapes, strict=True
    ):
        padded = F.pad(cells.reshape(images, height, width, heads * channels), (0, 0, 1, 1, 1, 1))
        maps.append(padded.flatten(1, 2))
        starts.append(start)
        start += (height + 2) * (width + 2)
    return torch.cat(maps, dim=1).view(images, start, heads, channels), starts


def _corner_rows(
    locations: Tensor, spatial_shapes: Shapes, starts: Sequence[int], cells: int
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Table rows of the four corners (B, N, heads, 4, L points); how far right and below the first, 0-1.

    What differs by level is repeated for a whole row of (heads, L, points): broadcasting along the last two
    or three numbers would run them one at a time.
    """
    device, dtype = locations.device, locations.dtype
    images, queries, heads, levels, points, _ = locations.shape
    repeat = (heads, levels, points)
    size = torch.tensor([(w, h) for h, w in spatial_shapes], device=device, dtype=dtype)
    sizes = size[:, None].expand(*repeat, 2).flatten()
    # Beyond the border cell nothing changes any more: all corners are zero there.
    position = torch.addcmul(sizes.new_tensor(-0.5), locations.flatten(2), sizes)
    position = position.clamp(sizes.new_tensor(-1), sizes)
    with torch.no_grad():
        corner = torch.minimum(position.floor(), sizes - 1)
        strides = torch.tensor([w + 2 for _, w in spatial_shapes], device=device)[:, None]
        origins = torch.tensor(starts, device=device)[:, None] + strides + 1
        origins, stride = (t.expand(*repeat).flatten().float() for t in (origins, strides))
        # Float arithmetic is exact here (cells < 2**24), and four times faster than 64-bit integers.
        x, y = corner.unflatten(2, (-1, 2)).float().unbind(-1)
        cell = torch.addcmul(x + origins, y, stride).to(torch.int32)
        head = torch.arange(heads, device=device, dtype=torch.int32)
        row = cell * heads + head.repeat_interleave(levels * points)
        if images > 1:
            image = torch.arange(images, device=device, dtype=torch.int32) * (cells * heads)
            row = row + image.view(-1, 1, 1)
        down = (strides * heads).to(torch.int32).expand(*repeat).flatten()
        below = row + down
        bags = [r.view(images, queries, heads, -1) for r in (row, row + heads, below, below + heads)]
        rows = torch.stack(bags, dim=3)
    fractions = (position - corner).view(images, queries, heads, -1, 2)
    return rows, (fractions[..., 0], fractions[..., 1])


class _WeightedRows(torch.autograd.Function):
    """`out[i] = sum_j weights[i, j] * table[rows[i, j]]`, with a gradient that does not sort 64-bit keys."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, rows, weights)
        return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, rows, weights = ctx.saved_tensors
        grad = grads[0].contiguous()
        table_grad = weights_grad = None
        by_sparse = table.device.type == "cpu" and table.dtype in (torch.float32, torch.float64)
        if ctx.needs_input_grad[0]:
            scattered = _scattered_on_cpu if by_sparse else _scattered_by_sorting
            table_grad = scattered(grad, rows, weights, len(table))
        if ctx.needs_input_grad[2]:
            fits = by_sparse and rows.shape[1] <= len(table)  # a sparse row holds no more than a dense one
            weights_grad = (_products_on_cpu if fits else _products_by_bags)(grad, table, rows)
        return table_grad, None, weights_grad


def _scattered_on_cpu(grad: Tensor, rows: Tensor, weights: Tensor, count: int) -> Tensor:
    """`out[rows[i, j]] += weights[i, j] * grad[i]` in one pass: a sparse matrix, transposed, times `grad`.

    Rows and weights are such a matrix as they lie, so nothing is sorted: an eighth of the time on a CPU.
    """
    from scipy.sparse import csr_matrix

    bags, per_bag = rows.shape
    starts = np.arange(bags + 1, dtype=np.int32) * np.int32(per_bag)
    entries = (weights.detach().to(grad.dtype).reshape(-1).numpy(), rows.reshape(-1).numpy(), starts)
    return torch.from_numpy(csr_matrix(entries, shape=(bags, count), copy=False).T @ grad.detach().numpy())


def _scattered_by_sorting(grad: Tensor, rows: Tensor, weights: Tensor, count: int) -> Tensor:
    """The same by sorting 32-bit keys once."""
    order, position = torch.sort(rows.reshape(-1))
    firsts = torch.searchsorted(
        order, torch.arange(count, device=rows.device, dtype=torch.int32), out_int32=True
    )
    sources = torch.div(position, rows.shape[1], rounding_mode="floor").to(torch.int32)
    return F.embedding_bag(
        sources, grad, firsts, mode="sum", per_sample_weights=weights.reshape(-1)[position]
    )


def _products_on_cpu(grad: Tensor, table: Tensor, rows: Tensor) -> Tensor:
    """`out[i, j] = grad[i] . table[rows[i, j]]`: a product of two matrices, at the places of a sparse one.

    A fifth of the time of the gradient of `embedding_bag`, which reads the numbers one at a time.
    """
    starts = torch.arange(len(rows) + 1, dtype=torch.int32) * rows.shape[1]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        places = torch.sparse_csr_tensor(
            starts,
            rows.reshape(-1),
            table.new_zeros(rows.numel()),
            (len(rows), len(table)),
            check_invariants=False,
        )
    products = torch.sparse.sampled_addmm(places, grad.to(table.dtype), table.T, beta=0.0)
    return products.values().view(rows.shape)  # type: ignore[no-any-return]


def _products_by_bags(grad: Tensor, table: Tensor, rows: Tensor) -> Tensor:
    """The same by the gradient of `embedding_bag`."""
    count, per_row = rows.shape
    bags = torch.arange(count, device=rows.device, dtype=torch.int32)
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad, table, rows.reshape(-1), bags * per_row, bags.repeat_interleave(per_row), 0
    )
    return products.view(rows.shape)  # type: ignore[no-any-return]


KERNELS: dict[str, Kernel] = {"cpu": sample_by_bags}
"""Device type -> implementation; others fall back to `sample_by_bags`. A compiled kernel plugs in here."""


class DeformableAttention(nn.Module):
    """Attention whose keys are a few learned points around each query's own position, on every level."""

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(dim, heads * levels * points * 2)
        self.weights = nn.Linear(dim, heads * levels * points)
        self.values = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with each head's points on a ray of its own, one cell further a point, equally weighted."""
        nn.init.zeros_(self.offsets.weight)
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        rays = torch.stack((angles.cos(), angles.sin()), dim=-1)
        rays = rays / rays.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = rays[:, None, None] * steps[:, None]  # (heads, 1, points, 2)
        with torch.no_grad():
            self.offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        for linear in (self.values, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, tokens: Tensor, positions: Tensor, reference: Tensor, spatial_shapes: Shapes) -> Tensor:
        """Attend from every token to all levels.

        Args:
            tokens: (B, S, dim), the levels one after the other.
            positions: (1 or B, S, dim), added to the tokens where they ask, not where they answer.
            reference: (S, 2), each token's own (x, y), 0-1.
            spatial_shapes: (h, w) of each level.

        Returns:
            (B, S, dim).
        """
        images, count, _ = tokens.shape
        asking = tokens + positions
        grid = (images, count, self.heads, self.levels, self.points)
        with torch.autocast(tokens.device.type, enabled=False):  # positions need all their digits
            offsets = self.offsets(asking)
            # Of a dozen numbers each: down the columns of a matrix a CPU takes many such sums at once.
            wishes = self.weights(asking).view(-1, self.levels * self.points)
            weights = wishes.T.contiguous().softmax(0).T.reshape(grid)
        values = self.values(tokens).to(offsets).view(images, count, self.heads, -1)
        # Repeated for all heads, levels and points, because broadcasting along two numbers is slow.
        cell = 1 / offsets.new_tensor([(w, h) for h, w in spatial_shapes])
        cells = cell[:, None].expand(*grid[2:], 2).flatten()
        own = reference.repeat(1, len(cells) // 2)
        locations = torch.addcmul(own, offsets, cells).view(*grid, 2)
        sampled = deformable_sampling(values, spatial_shapes, locations, weights)
        return self.output(sampled)  # type: ignore[no-any-return]
