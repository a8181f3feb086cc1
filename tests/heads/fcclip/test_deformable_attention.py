"""The fast sampling against the readable one, values worked by hand, and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heads.fcclip.deformable_attention import (
    KERNELS,
    DeformableAttention,
    _products_by_bags,
    _products_on_cpu,
    _scattered_by_sorting,
    _scattered_on_cpu,
    deformable_sampling,
    sample_by_bags,
    sample_by_grid,
)
from heads.fcclip.position import reference_points

SHAPES = ((2, 3), (4, 6), (7, 5))


def inputs(images: int = 2, queries: int = 11, *, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    heads, points, channels = 4, 3, 8
    cells = sum(h * w for h, w in SHAPES)
    weights = torch.rand(images, queries, heads, len(SHAPES) * points, dtype=dtype).softmax(-1)
    return [
        torch.randn(images, cells, heads, channels, dtype=dtype),
        # A third of the points lies outside of the maps, some of them far away.
        torch.rand(images, queries, heads, len(SHAPES), points, 2, dtype=dtype) * 1.6 - 0.3,
        weights.view(images, queries, heads, len(SHAPES), points),
    ]


@pytest.mark.parametrize("images", [1, 2, 3])
def test_equals_the_readable_one(images: int) -> None:
    value, locations, weights = inputs(images)
    expected = sample_by_grid(value, SHAPES, locations, weights)
    found = sample_by_bags(value, SHAPES, locations, weights)
    assert found.shape == (images, 11, 32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_points_on_and_beyond_the_border() -> None:
    value = torch.ones(1, 6, 1, 1)
    places = [-5.0, -0.25, 0.0, 1 / 6, 0.5, 1.0, 1.25, 7.0]
    locations = torch.tensor([(x, 0.25) for x in places]).view(1, len(places), 1, 1, 1, 2)
    weights = torch.ones(1, len(places), 1, 1, 1)
    found = sample_by_bags(value, [(2, 3)], locations, weights)[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]))


def test_by_hand() -> None:
    value = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    locations = torch.tensor([[0.5, 0.5], [0.25, 0.25]]).view(1, 1, 1, 1, 2, 2)
    weights = torch.tensor([0.75, 0.25]).view(1, 1, 1, 1, 2)
    found = deformable_sampling(value, [(2, 2)], locations, weights)
    torch.testing.assert_close(found, torch.tensor([[[0.75 * 2.5 + 0.25 * 1.0]]]))


def test_gradients() -> None:
    arguments = [a.requires_grad_() for a in inputs(2, 5, dtype=torch.float64)]
    cotangent = torch.randn(2, 5, 32, dtype=torch.float64)
    expected = torch.autograd.grad(sample_by_grid(arguments[0], SHAPES, *arguments[1:]), arguments, cotangent)
    found = torch.autograd.grad(sample_by_bags(arguments[0], SHAPES, *arguments[1:]), arguments, cotangent)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_of_more_points_than_cells() -> None:
    arguments = [
        torch.randn(1, 1, 1, 2, requires_grad=True),
        torch.rand(1, 2, 1, 1, 5, 2, requires_grad=True),
        torch.rand(1, 2, 1, 1, 5, requires_grad=True),
    ]
    found, expected = (
        torch.autograd.grad(sample(arguments[0], [(1, 1)], *arguments[1:]).sum(), arguments)
        for sample in (sample_by_bags, sample_by_grid)
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_of_some_inputs_only() -> None:
    value, locations, weights = inputs(1, 3)
    value.requires_grad_()
    (grad,) = torch.autograd.grad(sample_by_bags(value, SHAPES, locations, weights).sum(), value)
    assert grad.shape == value.shape


def test_both_ways_to_scatter_add_up_repeated_rows() -> None:
    grad, weights = torch.randn(7, 3), torch.randn(7, 6)
    rows = torch.randint(0, 5, (7, 6), dtype=torch.int32)  # rows repeat, and none reaches the last two
    expected = torch.zeros(7, 3).index_add(
        0, rows.flatten().long(), (weights[..., None] * grad[:, None]).flatten(0, 1)
    )
    for scattered in (_scattered_on_cpu, _scattered_by_sorting):
        torch.testing.assert_close(scattered(grad, rows, weights, 7), expected)


def test_both_ways_to_multiply_rows_of_a_table() -> None:
    grad, table = torch.randn(7, 3), torch.randn(6, 3)
    rows = torch.randint(0, 6, (7, 6), dtype=torch.int32)  # some repeat within a bag
    expected = (table[rows.long()] * grad[:, None]).sum(-1)
    for products in (_products_on_cpu, _products_by_bags):
        torch.testing.assert_close(products(grad, table, rows), expected)


def test_another_kernel_plugs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    value, locations, weights = inputs(1)
    monkeypatch.setitem(KERNELS, "cpu", sample_by_grid)
    found = deformable_sampling(value, SHAPES, locations, weights)
    assert torch.equal(found, sample_by_grid(value, SHAPES, locations, weights))


def test_a_batch_equals_its_images() -> None:
    attention = DeformableAttention(dim=32, heads=4, levels=3, points=2).eval()
    torch.nn.init.normal_(attention.offsets.weight)
    cells = sum(h * w for h, w in SHAPES)
    tokens, positions = torch.randn(2, cells, 32), torch.randn(1, cells, 32)
    reference = reference_points(SHAPES, torch.device("cpu"))
    together = attention(tokens, positions, reference, SHAPES)
    for index in range(2):
        alone = attention(tokens[index : index + 1], positions, reference, SHAPES)
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    value, locations, weights = (a.cuda() for a in inputs(2))
    expected = sample_by_grid(value, SHAPES, locations, weights)
    torch.testing.assert_close(
        deformable_sampling(value, SHAPES, locations, weights), expected, rtol=0, atol=1e-5
    )
