"""What the official code gave at a small width: every kind of block, several sizes and views.

The official classes were built with a trunk and channels as small as those of `OWN`, filled with the
synthetic weights, and run in float32 (their rounding to float16 taken out): the network alone, and its
evaluator over windows, scales and mirror images. The goldens are their values at 200 places, for 7 words
drawn by `words`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

import ovperception
from heads.lseg import LSeg, looks
from ovperception.backbones import Features
from ovperception.errors import InvalidParameter
from ovperception.head import Encoding, TextPixelScores
from ovperception.sliding import Views
from tests.heads.lseg.official import golden, network_input, picture, synthetic_head, text_of
from tests.heads.lseg.small import OWN, image, text_tower, write_small_bundle

pytestmark = pytest.mark.parity

CONFIG = replace(OWN, embed_dim=512)
BLOCKS = {
    "00lrelu": (0, 0, "lrelu"),
    "11lrelu": (1, 1, "lrelu"),
    "13tanh": (1, 3, "tanh"),
    "21tanh": (2, 1, "tanh"),
    "22lrelu": (2, 2, "lrelu"),
}
VIEWS = [
    ((75, 110), Views(base=96, crop=64, scales=(0.5, 1.0, 1.75), pad_value=-1.0)),
    ((110, 75), Views(base=96, crop=64, scales=(0.75, 1.25), pad_value=-1.0)),
    ((64, 64), Views(base=64, crop=64, flip=False, pad_value=-1.0)),
    ((50, 150), Views(base=130, crop=96, scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), pad_value=-1.0)),
    ((33, 41), Views(base=96, crop=64, scales=(0.75, 1.0, 2.25), pad_value=-1.0)),
]
DIFFERENCE = 1e-5
"""Of a value, relative to the largest of its picture; 3e-6 was seen."""


def words() -> Tensor:
    return F.normalize(torch.from_numpy(np.random.RandomState(7).standard_normal((7, 512))).float(), dim=1)


def head_with(blocks: str, views: Views | None = None) -> LSeg:
    option, depth, activation = BLOCKS[blocks]
    settings: Any = {"arch_option": option, "block_depth": depth, "activation": activation, "views": views}
    return synthetic_head(replace(CONFIG, **settings))


def look(head: LSeg, pixels: NDArray[np.uint8]) -> Encoding:
    images = network_input(pixels)
    size = (int(images.shape[2]), int(images.shape[3]))
    backbone, _ = text_tower()
    return head.encode(backbone, Features(maps={}, image_size=size, images=images))


def check(found: Tensor, name: str) -> None:
    values = found.numpy().reshape(-1)
    places = np.random.RandomState(0).choice(values.size, 200, replace=False)
    expected = golden("golden_small")[name]
    difference = np.abs(values[places] - expected).max() / np.abs(expected).max()
    print(name, f"{difference:.1e}")
    assert difference < DIFFERENCE


@pytest.mark.parametrize("blocks", BLOCKS)
@torch.inference_mode()
def test_the_network(blocks: str) -> None:
    head = head_with(blocks)
    for height, width in ((64, 64), (96, 160), (224, 32), (128, 192)):
        scores = head.classify(look(head, picture(3, height, width)), text_of(words()))
        assert isinstance(scores, TextPixelScores)
        full = F.interpolate(scores.logits[None], scale_factor=2, mode="bilinear", align_corners=True)
        check(full[0], f"net/{blocks}/{height}x{width}")


@pytest.mark.parametrize("number", range(len(VIEWS)))
@pytest.mark.parametrize("blocks", BLOCKS)
@torch.inference_mode()
def test_the_evaluator(blocks: str, number: int) -> None:
    size, views = VIEWS[number]
    head = head_with(blocks, views)
    scores = head.classify(look(head, picture(4 + number, *size)), text_of(words()))
    assert isinstance(scores, TextPixelScores)
    assert scores.grid == size
    check(scores.logits * views.looks, f"views/{blocks}/{number}")
    part = scores.cells(slice(5, 20), slice(30, 33)).permute(2, 0, 1)
    torch.testing.assert_close(part, scores.logits[:, 5:20, 30:33], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_similarities_are_those_of_averaged_embeddings() -> None:
    size, views = VIEWS[0]
    views = replace(views, max_cells=2000)
    plain, refined = (head_with(b, views) for b in ("00lrelu", "13tanh"))
    expected, found = (
        h.classify(look(h, picture(4, *size)), text_of(words())).similarities  # type: ignore[union-attr]
        for h in (plain, refined)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_windows_that_are_too_many_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_MOST", 10**6)
    size, views = VIEWS[0]
    with pytest.raises(InvalidParameter, match="every window kept"):
        look(head_with("11lrelu", views), picture(4, *size))


def test_a_bundle_with_views_and_blocks(tmp_path: Path) -> None:
    views = {"base": 96, "crop": 64, "scales": [0.5, 1.0], "pad_value": -1.0}
    settings = {"views": views, "arch_option": 1, "block_depth": 2, "activation": "tanh"}
    scene = ovperception.load(write_small_bundle(tmp_path / "views.safetensors", **settings)).encode(image())
    assert scene.semantic(["cat", "dog|hound", "taxi"]).labels.shape == (90, 133)
    assert np.abs(scene.heatmap("a cat")).max() <= 1 + 1e-5
