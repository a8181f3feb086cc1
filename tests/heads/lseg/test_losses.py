"""What LSeg's loss computes by itself, against the plain formulas of torch, gradients too."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from heads.lseg.losses import _read_at
from heads.lseg.unit_length import unit_length


def test_unit_length_is_torchs_and_so_is_its_gradient() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 5, 3, 4)
    maps[0, :, 1, 2] = 0  # nothing is divided by nothing
    cotangent = torch.randn_like(maps)
    cotangent[0, :, 1, 2] = 0
    found, expected = (
        (of(leaf), torch.autograd.grad(of(leaf), leaf, cotangent)[0])
        for leaf, of in (
            (maps.clone().requires_grad_(), unit_length),
            (maps.clone().requires_grad_(), lambda m: F.normalize(m, dim=1)),
        )
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_unit_length_of_a_single_number_has_no_gradient() -> None:
    leaf = torch.tensor([3.0, -0.5]).view(1, 1, 1, 2).requires_grad_()
    unit = unit_length(leaf)
    unit.sum().backward()
    assert unit.flatten().tolist() == [1.0, -1.0]
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, torch.zeros_like(leaf))


def test_reading_at_places_is_bilinear_from_corner_to_corner() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 4, 6)
    inside, rim = torch.rand(2, 40, 2), torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.4, 1.0]])
    places = torch.cat((inside, rim.expand(2, -1, -1)), dim=1)
    cotangent = torch.randn(2, 3, 1, 44)
    leaves = [maps.clone().requires_grad_() for _ in range(2)]
    found = _read_at(leaves[0], places)
    expected = F.grid_sample(leaves[1], 2 * places[:, None] - 1, mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    gradients = [
        torch.autograd.grad(f, leaf, cotangent)[0] for f, leaf in zip((found, expected), leaves, strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


def test_reading_a_map_of_one_row() -> None:
    ramp = torch.arange(3.0).view(1, 1, 1, 3)
    places = torch.tensor([[[0.25, 0.0], [0.5, 0.7], [1.0, 1.0]]])
    assert _read_at(ramp, places).flatten().tolist() == [0.5, 1.0, 2.0]
