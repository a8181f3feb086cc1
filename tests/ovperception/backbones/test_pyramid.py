"""The pyramid: large regions are those of the smaller picture, small ones are untouched."""

from __future__ import annotations

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


def test_boxes_are_read_from_the_level_that_fits_them(backbones, images):
    plain, pyramid = backbones
    boxes = torch.tensor([[10.0, 20, 50, 70], [8, 16, 108, 112], [0, 0, 300, 250]])
    found = pyramid.embed_boxes(pyramid.features(images), [boxes, boxes[:2]])
    expected = []
    for image, of in zip(images, (boxes, boxes[:2]), strict=True):
        for box, factor in zip(of, (1, 2, 4), strict=False):
            features = plain.features(shrunk(image[None], factor))
            expected.append(plain.embed_boxes(features, [box[None] / factor])[0])
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_masks_are_read_from_the_level_that_fits_them(backbones, images):
    plain, pyramid = backbones
    masks = torch.zeros(2, 3, 8, 12, dtype=torch.bool)
    masks[:, 0, 2, 3] = True
    masks[:, 1, 2:4, 4:6] = True  # one cell of the picture half as large
    masks[:, 2, :8, :8] = True
    found = pyramid.embed_masks(pyramid.features(images), masks)
    for index, factor in enumerate((1, 2, 4)):
        coarse = F.max_pool2d(masks[:, index : index + 1].float(), factor) > 0
        expected = plain.embed_masks(plain.features(shrunk(images, factor)), coarse)
        torch.testing.assert_close(found[:, index : index + 1], expected, rtol=1e-4, atol=1e-5)


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
