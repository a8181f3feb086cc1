"""From the network's grid to pixels, window by window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovperception.images import Geometry
from ovperception.postprocess.resize import Resizer, Window, tiles
from tests.ovperception.postprocess.samples import GEOMETRIES, full


@pytest.mark.parametrize("geometry", GEOMETRIES)
class TestResizing:
    def test_equals_two_interpolations(self, geometry: Geometry) -> None:
        logits = torch.randn(3, 16, 24)
        whole = Window(0, geometry.original[0], 0, geometry.original[1])
        resizer, expected = Resizer(geometry, (16, 24)), full(logits, geometry)
        for grid, picture in zip(logits, expected, strict=True):
            torch.testing.assert_close(resizer.one(grid, whole), picture, rtol=0, atol=2e-6)

    def test_windows_are_parts_of_the_whole(self, geometry: Geometry) -> None:
        logits = torch.randn(3, 16, 24)
        expected = full(logits, geometry)
        resizer = Resizer(geometry, (16, 24))
        covered = np.zeros(geometry.original, int)
        for window in tiles(geometry.original):
            part = np.s_[window.top : window.bottom, window.left : window.right]
            covered[part] += 1
            cells = resizer.cells(logits.permute(1, 2, 0), window)
            piece = expected[:, part[0], part[1]]
            found = resizer.expand(cells, window).T.unflatten(1, window.size)
            torch.testing.assert_close(found, piece, rtol=0, atol=2e-6)
            torch.testing.assert_close(resizer.one(logits[1], window), piece[1], rtol=0, atol=2e-6)
            assert float(cells.amax()) + 1e-5 >= float(piece.amax())
        assert (covered == 1).all()

    def test_nothing_positive_lies_outside_the_extent(self, geometry: Geometry) -> None:
        resizer = Resizer(geometry, (16, 24))
        for logits in torch.randn(20, 1, 16, 24) - 1.5:
            window = resizer.extent(logits[0] > 0)
            positive = full(logits, geometry)[0] > 0
            positive[window.top : window.bottom, window.left : window.right] = False
            assert not positive.any()


def test_extent_of_nothing_is_empty() -> None:
    assert Resizer(GEOMETRIES[1], (16, 24)).extent(torch.zeros(16, 24, dtype=torch.bool)).size == (0, 0)


def test_a_resizer_made_without_gradients_serves_with_them() -> None:
    geometry = Geometry(original=(31, 17), resized=(31, 17), padded=(32, 32))
    with torch.inference_mode():
        Resizer(geometry, (8, 8))
    logits = torch.randn(8, 8, 1, requires_grad=True)
    window = Window(0, 31, 0, 17)
    resizer = Resizer(geometry, (8, 8))
    resizer.expand(resizer.cells(logits, window), window).sum().backward()
    assert logits.grad is not None
