"""Looking around equals the evaluator written out: canvases, counts, sums."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ovperception.errors import InvalidParameter
from ovperception.sliding import Views, look_around


def embed(images: Tensor) -> Tensor:
    """Depends on the place in the window, and is of half its size."""
    weights = torch.linspace(0.5, 1.5, images.shape[3]) * torch.linspace(1, 2, images.shape[2])[:, None]
    return F.avg_pool2d(torch.cat((images, images.square()), dim=1) * weights, 2)


def evaluator(images: Tensor, views: Views) -> Tensor:
    """Sums over scales and both sides at full size, as LSeg's evaluator makes them of scores."""
    height, width = images.shape[2:]
    crop, stride = views.crop, int(views.crop * 2.0 / 3.0)
    total = torch.zeros(len(images), 6, height, width)

    def network(x: Tensor) -> Tensor:
        return F.interpolate(embed(x), size=(crop, crop), mode="bilinear", align_corners=True)

    def both(x: Tensor) -> Tensor:
        return network(x) + network(x.flip(3)).flip(3) if views.flip else network(x)

    def pad(x: Tensor) -> Tensor:
        missing = (max(crop - x.shape[2], 0), max(crop - x.shape[3], 0))
        return F.pad(x, (0, missing[1], 0, missing[0]), value=views.pad_value)

    for scale in views.scales:
        long = math.ceil(views.base * scale)
        h = long if height > width else int(height * long / width + 0.5)
        w = int(width * long / height + 0.5) if height > width else long
        picture = pad(F.interpolate(images, (h, w), mode="bilinear", align_corners=True))
        ph, pw = picture.shape[2:]
        canvas, count = torch.zeros(len(images), 6, ph, pw), torch.zeros(ph, pw)
        for row in range(max(math.ceil((ph - crop) / stride), 0) + 1):
            for column in range(max(math.ceil((pw - crop) / stride), 0) + 1):
                y, x = row * stride, column * stride
                y1, x1 = min(y + crop, ph), min(x + crop, pw)
                canvas[..., y:y1, x:x1] += both(pad(picture[..., y:y1, x:x1]))[..., : y1 - y, : x1 - x]
                count[y:y1, x:x1] += 1
        canvas = (canvas / count)[..., :h, :w]
        total += F.interpolate(canvas, (height, width), mode="bilinear", align_corners=True)
    return total


@pytest.mark.parametrize("size", [(40, 60), (61, 33), (24, 24), (9, 70)])
@pytest.mark.parametrize("flip", [True, False])
def test_equals_the_evaluator(size: tuple[int, int], flip: bool) -> None:
    views = Views(base=50, crop=24, scales=(0.3, 0.75, 1.0, 1.75), flip=flip, pad_value=-1.0)
    images = torch.randn(2, 3, *size)
    expected = evaluator(images, views) / (4 * (1 + flip))
    found = look_around(embed, images, views)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_fewer_cells_are_the_same_sums_at_fewer_places() -> None:
    images = F.interpolate(torch.randn(1, 3, 5, 7), (48, 64), mode="bicubic")
    views = Views(base=64, crop=32, flip=True, max_cells=24 * 32)
    found = look_around(embed, images, views)
    assert found.shape == (1, 6, 24, 32)
    whole = look_around(embed, images, Views(base=64, crop=32, flip=True))
    corners = (slice(None), slice(None), slice(None, None, 23), slice(None, None, 31))
    torch.testing.assert_close(found[corners], whole[..., ::47, ::63], rtol=1e-5, atol=1e-5)


def test_no_window_is_larger_than_the_crop() -> None:
    seen: list[tuple[int, ...]] = []

    def watch(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape))
        return embed(images)

    views = Views(base=400, crop=32, scales=(1.0,), flip=False, max_cells=64)
    found = look_around(watch, torch.randn(1, 3, 30, 40), views)
    assert found[0, 0].numel() <= 64
    assert set(seen) == {(1, 3, 32, 32)}
    assert views.step == 21
    assert len(seen) == (math.ceil((400 - 32) / 21) + 1) * (math.ceil((300 - 32) / 21) + 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"base": 0, "crop": 8},
        {"base": 8, "crop": 2.5},
        {"base": 8, "crop": 8, "scales": []},
        {"base": 8, "crop": 8, "scales": [1.0, -1.0]},
        {"base": 8, "crop": 8, "overlap": 1.0},
        {"base": 8, "crop": 8, "overlap": 0.99},
        {"base": 8, "crop": 8, "pad_value": float("nan")},
        {"base": 8, "crop": 8, "max_cells": 0},
        {"base": 8, "crop": 8, "flip": "no"},
        {"base": 8},
        {"base": 8, "crop": 8, "stride": 2},
    ],
)
def test_bad_views(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter):
        Views.from_dict(settings)


def test_the_published_step_and_the_round_trip() -> None:
    for crop, step in ((480, 320), (768, 512), (256, 170), (255, 170), (24, 16)):
        assert Views(base=520, crop=crop).step == step == int(crop * 2.0 / 3.0)
    views = Views(base=520, crop=480, scales=(0.5, 1.75), flip=False, max_cells=99)
    assert Views.from_dict(views.to_dict()) == views


def test_an_immense_view_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="too large"):
        look_around(embed, torch.zeros(1, 3, 8, 8), Views(base=8, crop=8, scales=(10_000.0,)))
