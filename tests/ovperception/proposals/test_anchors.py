"""Anchors and deltas by hand-worked values."""

from __future__ import annotations

import math

import pytest
import torch

from ovperception.proposals.anchors import cell_anchors, decode_deltas, grid_anchors


def test_cell_anchors_have_the_area_and_the_ratio() -> None:
    anchors = cell_anchors((32, 64))
    assert anchors.shape == (6, 4)
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(1)
    torch.testing.assert_close(width * height, torch.tensor([32.0**2] * 3 + [64.0**2] * 3))
    torch.testing.assert_close(height / width, torch.tensor([0.5, 1, 2] * 2))
    assert anchors[1].tolist() == [-16, -16, 16, 16]


def test_grid_goes_row_by_row() -> None:
    anchors = grid_anchors(cell_anchors((8,), (1.0, 4.0)), (2, 3), 16)
    assert anchors.shape == (2 * 3 * 2, 4)
    assert anchors[0].tolist() == [-4, -4, 4, 4]
    assert anchors[1].tolist() == [-2, -8, 2, 8]
    assert anchors[2].tolist() == [12, -4, 20, 4]  # one cell to the right
    assert anchors[6].tolist() == [-4, 12, 4, 20]  # one cell down


def test_deltas() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])  # 20 wide, 40 high, centre (20, 40)
    assert decode_deltas(boxes, torch.zeros(1, 4)).tolist() == boxes.tolist()
    moved = decode_deltas(boxes, torch.tensor([[0.5, -0.25, math.log(2), 0.0]]))
    assert moved[0].tolist() == pytest.approx([10, 10, 50, 50])
    weighted = decode_deltas(boxes, torch.tensor([[5.0, -2.5, 5 * math.log(2), 0.0]]), (10, 10, 5, 5))
    torch.testing.assert_close(weighted, moved)


def test_growth_is_bounded() -> None:
    box = decode_deltas(torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([[0.0, 0.0, 99.0, 1e6]]))
    assert (box[:, 2:] - box[:, :2])[0].tolist() == pytest.approx([1000, 1000])
