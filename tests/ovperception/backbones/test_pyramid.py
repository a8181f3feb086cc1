"""The pyramid: large regions are those of the smaller picture, small ones are untouched."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ovperception.backbones import build_open_clip, from_open_clip
from ovperception.errors import InvalidParameter
from ovperception.training.contrastive import TINY_CLIP

PLAIN = {key: value for key, value in TINY_CLIP.items() if key != "pyramid"}


@pytest.fixture(scope="module")
def backbones():
    torch.manual_seed(0)
    model, tokenizer = build_open_clip(PLAIN)
    return tuple(
        from_open_clip(model, "tiny", tokenizer=tokenizer, config={**PLAIN, "pyramid": factors})
        for factors in ([], [2, 4])
    )


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 256, 384, generator=torch.Generator().manual_seed(1))


def shrunk(images, factor):
    size = [n // factor for n in images.shape[2:]]
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def blended(embeddings, side):
    """Of the levels 1, 2 and 4, for a region of which the first level shows this side; 44.8 is the best."""
    place = min(max(math.log2(side / 44.8), 0), 2)
    units = [F.normalize(e, dim=-1) for e in embeddings]
    return sum(max(1 - abs(place - level), 0) * unit for level, unit in enumerate(units))


def test_boxes_are_read_between_the_levels_that_fit_them(backbones, images):
    plain, pyramid = backbones
    # Smaller than is best, just so at half the size, between two levels, and larger than any level shrinks.
    boxes = torch.tensor([[10.0, 20, 50, 60], [8, 16, 97.6, 105.6], [8, 6, 128, 126], [0, 0, 300, 250]])
    found = pyramid.embed_boxes(pyramid.features(images), [boxes, boxes[:3]])
    expected = []
    for image, of in zip(images, (boxes, boxes[:3]), strict=True):
        looks = [(plain.features(shrunk(image[None], factor)), factor) for factor in (1, 2, 4)]
        for box in of:
            each = [plain.embed_boxes(features, [box[None] / factor])[0] for features, factor in looks]
            expected.append(blended(each, (box[2:] - box[:2]).prod().sqrt().item()))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_masks_are_read_between_the_levels_that_fit_them(backbones, images):
    plain, pyramid = backbones
    masks = torch.zeros(2, 3, 8, 12, dtype=torch.bool)
    masks[:, 0, 2, 3] = True
    masks[:, 1, 0:4, 4:8] = True  # one cell of the picture a quarter as large
    masks[:, 2, :8, :8] = True
    found = pyramid.embed_masks(pyramid.features(images), masks)
    for index in range(3):
        each = []
        for factor in (1, 2, 4):
            coarse = F.max_pool2d(masks[:, index : index + 1].float(), factor) > 0
            each.append(plain.embed_masks(plain.features(shrunk(images, factor)), coarse))
        side = (masks[0, index].sum().item() * 32**2 / 0.65) ** 0.5
        torch.testing.assert_close(found[:, index : index + 1], blended(each, side), rtol=1e-4, atol=1e-5)


def test_what_is_kept_of_an_image_answers_for_every_level(backbones, images):
    _, pyramid = backbones
    features = pyramid.features(images)
    kept = features.only(*pyramid.region_stages).image(1)
    box = torch.tensor([[0.0, 0, 300, 250]])
    torch.testing.assert_close(
        pyramid.embed_boxes(kept, [box]), pyramid.embed_boxes(features, [box, box])[1:], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("size", [(32, 32), (32, 200), (33, 65)])
def test_any_size_has_every_level(backbones, size):
    _, pyramid = backbones
    features = pyramid.features(torch.randn(1, 3, *size))
    height, width = features["res5"].shape[-2:]
    masks = torch.ones(1, 1, height, width, dtype=torch.bool)
    assert pyramid.embed_masks(features, masks).isfinite().all()
    assert len(pyramid.embed_boxes(features, [torch.zeros(0, 4)])) == 0


@pytest.mark.parametrize("factors", [[1], [4, 2], [0.5]])
def test_factors_must_rise(backbones, factors):
    plain, _ = backbones
    with pytest.raises(InvalidParameter, match="rise"):
        from_open_clip(plain.model, "tiny", tokenizer=plain.tokenizer, config={**PLAIN, "pyramid": factors})
