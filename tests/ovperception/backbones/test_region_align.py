"""Regions by matrix products, beside torchvision's ROIAlign."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from ovperception.backbones.region_align import RegionWeights

BOXES = {
    "inside": [10, 20, 90, 70],
    "smaller than a cell": [33, 35, 36, 39],
    "many cells a bin": [0, 0, 300, 200],
    "over the edge": [-40, -9, 70, 400],
    "outside": [-300, -300, -100, -100],
    "at the last cell": [290, 190, 304, 208],
    "no width": [50, 50, 50, 80],
    "inverted": [80, 60, 20, 90],
}


@pytest.mark.parametrize("box", list(BOXES.values()), ids=list(BOXES))
def test_it_is_torchvisions(box):
    maps = torch.randn(2, 6, 13, 19).contiguous(memory_format=torch.channels_last)
    rois = torch.tensor([[1.0, *box], [0.0, 3, 4, 55, 66]])
    found = RegionWeights.of(rois, 4, (13, 19), 1 / 16).align(maps)
    expected = roi_align(maps, rois, 4, spatial_scale=1 / 16, sampling_ratio=0, aligned=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_no_regions():
    weights = RegionWeights.of(torch.zeros(0, 5), 4, (9, 7), 1 / 16)
    assert weights.halved().align(torch.randn(1, 5, 9, 7)).shape == (0, 5, 2, 2)


def test_two_by_two_bins_may_be_one():
    maps = torch.randn(1, 5, 9, 7)
    weights = RegionWeights.of(torch.tensor([[0.0, -9, 5, 77, 140]]), 6, (9, 7), 1 / 16)
    torch.testing.assert_close(weights.halved().align(maps), F.avg_pool2d(weights.align(maps), 2))


def test_it_can_be_learned_through():
    maps = torch.randn(1, 3, 6, 6, dtype=torch.double, requires_grad=True)
    rois = torch.tensor([[0.0, 8, 8, 60, 50]], dtype=torch.double)
    weights = RegionWeights.of(rois, 2, (6, 6), 1 / 16)
    assert torch.autograd.gradcheck(weights.align, (maps,))
