"""The head by its contract: any size, either kind, threads, training, and what it refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heads.lseg import LSeg, LSegConfig
from ovperception.backbones import Features
from ovperception.errors import InvalidParameter
from ovperception.head import Head, PixelEncoding
from ovperception.sliding import Views
from ovperception.training.targets import Targets, TrainableHead
from tests.heads.lseg.official import synthetic_head, text_of
from tests.heads.lseg.small import OWN, head_on, small_clip, text_tower


def of_images(images: Tensor) -> Features:
    return Features(maps={}, image_size=(images.shape[2], images.shape[3]), images=images)


def words(count: int = 4) -> Any:
    return text_of(F.normalize(torch.randn(count, 24), dim=1))


@pytest.mark.parametrize("family", ["resnet", "convnext", "vit"])
@pytest.mark.parametrize("size", [(64, 96), (96, 32)])
def test_on_a_frozen_clip(family: str, size: tuple[int, int]) -> None:
    backbone, _ = small_clip(family)
    head = head_on(backbone)
    assert isinstance(head, Head)
    assert isinstance(head, TrainableHead)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        encoding = head.encode(backbone, backbone.features(images))
        finest = backbone.features(images)[head.config.stages[0]].shape[-2:]
    ratio = 8 if family == "vit" else 2  # 4 and 2 times the size of the finest map
    assert encoding.embeddings.shape == (2, 24, ratio * finest[0], ratio * finest[1])
    torch.testing.assert_close(encoding.embeddings.norm(dim=1), torch.ones(2, *encoding.embeddings.shape[2:]))
    with torch.no_grad():
        alone = head.encode(backbone, backbone.features(images[1:]))
    torch.testing.assert_close(encoding[1].embeddings, alone.embeddings, rtol=0, atol=2e-5)
    assert LSeg(LSegConfig.from_dict(head.config.to_dict())).config == head.config


@pytest.mark.parametrize("family", ["", "resnet", "vit"])
@pytest.mark.parametrize("pixels", [None, 50])
def test_learning(family: str, pixels: int | None) -> None:
    """Two halves of a picture are told apart after a few steps, and the backbone stays as it is."""
    backbone, _ = small_clip(family) if family else text_tower()
    head = head_on(backbone) if family else synthetic_head(OWN)
    head.train().requires_grad_(True)
    head.loss_settings = replace(head.loss_settings, pixels=pixels)
    before = backbone.spec.digest
    images = torch.zeros(2, 3, 64, 64)
    images[..., :32] = 1
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :, :32] = masks[1, :50, 32:] = True  # a corner has no class
    truth = Targets(class_ids=torch.tensor([2, 0]), masks=masks, boxes=torch.zeros(2, 4))
    features, text = backbone.features(images), words()
    optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3)
    history = []
    for _ in range(12):
        losses = head.losses(backbone, features, [truth, truth], text)
        assert set(losses) == {"pixel"}
        optimiser.zero_grad()
        losses["pixel"].backward()
        optimiser.step()
        history.append(float(losses["pixel"].detach()))
    assert min(history[-3:]) < 0.7 * history[0]
    assert backbone.spec.digest == before


def test_the_loss_by_hand() -> None:
    head = synthetic_head(OWN).requires_grad_(True)
    features, text = of_images(torch.randn(1, 3, 32, 32)), words(3)
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, 3, 5] = masks[1, 31, 31] = True
    truth = Targets(class_ids=torch.tensor([1, 2]), masks=masks, boxes=torch.zeros(2, 4))
    logits = F.interpolate(head.logits(head(features), text), (32, 32), mode="bilinear", align_corners=True)[
        0
    ]
    expected = -(logits[:, 3, 5].log_softmax(0)[1] + logits[:, 31, 31].log_softmax(0)[2]) / 2
    backbone, _ = text_tower()
    for pixels in (None, 2):
        head.loss_settings = replace(head.loss_settings, pixels=pixels)
        loss = head.losses(backbone, features, [truth], text)["pixel"]
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    nothing = Targets(class_ids=torch.zeros(0, dtype=torch.long), masks=masks[:0], boxes=torch.zeros(0, 4))
    loss = head.losses(backbone, features, [nothing], text)["pixel"]
    loss.backward()
    assert float(loss.detach()) == 0


@torch.inference_mode()
def test_threads_share_a_head() -> None:
    head = synthetic_head(OWN)
    pictures = [torch.randn(1, 3, 32 * (1 + n % 3), 64) for n in range(12)]
    expected = [head(of_images(p)) for p in pictures]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda p: _without_gradients(head, p), pictures))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def _without_gradients(head: LSeg, picture: Tensor) -> Tensor:
    with torch.no_grad():
        return head(of_images(picture))


@torch.inference_mode()
def test_sizes_that_the_reference_refuses() -> None:
    """Of 17 rows of patches the coarsest level has 9; the path is fitted to what it meets."""
    found = synthetic_head(OWN)(of_images(torch.randn(1, 3, 272, 256)))
    assert found.shape == (1, 24, 136, 128)


@torch.no_grad()
def test_views_are_summed_before_the_words() -> None:
    backbone, _ = text_tower()
    views = Views(base=96, crop=64, scales=(0.5, 1.0), pad_value=-1.0)
    once, around = synthetic_head(OWN), synthetic_head(replace(OWN, views=views))
    images = torch.randn(1, 3, 50, 70)
    encoding = around.encode(backbone, of_images(images))
    assert encoding.embeddings.shape == (1, 24, 50, 70)
    on_clip, _ = small_clip("resnet")
    seen = head_on(on_clip, views=views.to_dict()).encode(on_clip, on_clip.features(images))
    assert seen.embeddings.shape == (1, 24, 50, 70)
    # At the size of one window, without mirroring, a view is a look.
    single = synthetic_head(replace(OWN, views=Views(base=64, crop=64, flip=False)))
    square = torch.randn(1, 3, 64, 64)
    look = F.interpolate(once(of_images(square)), (64, 64), mode="bilinear", align_corners=True)
    torch.testing.assert_close(single.encode(backbone, of_images(square)).embeddings, look, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"surprise": 1},
        {"features": 0},
        {"stages": ["res2"]},
        {"stages": ["res2", "res3", "res4", "res9"]},
        {"logit_scale": 0},
        {"logit_scale": True},
        {"arch_option": 3},
        {"arch_option": 1, "block_depth": -1},
        {"arch_option": 1, "activation": "gelu"},
        {"embed_dim": 23},
        {"views": 3},
        {"views": {"base": 8}},
        {"trunk": {"width": 32}},
        {"trunk": {**OWN.to_dict()["trunk"], "heads": 5}},
        {"trunk": {**OWN.to_dict()["trunk"], "taps": [0, 1, 3, 9]}},
        {"reassemble_channels": [1, 2]},
    ],
)
def test_bad_settings(settings: dict[str, Any]) -> None:
    backbone, _ = small_clip("resnet")
    with pytest.raises(InvalidParameter):
        LSeg.from_settings(settings, backbone.spec)


def test_what_does_not_fit_is_refused() -> None:
    clip, _ = small_clip("resnet")
    other, _ = small_clip("vit")
    images = torch.randn(1, 3, 64, 64)
    with pytest.raises(InvalidParameter, match="does not fit"):
        head_on(clip).encode(other, other.features(images))
    own = synthetic_head(OWN)
    with pytest.raises(InvalidParameter, match="looks at pixels"):
        own.encode(clip, clip.features(images).only("res5"))
    with pytest.raises(InvalidParameter, match="whole patches"):
        own(of_images(torch.randn(1, 3, 60, 64)))
    two = PixelEncoding(embeddings=torch.randn(2, 24, 4, 4))
    with pytest.raises(InvalidParameter, match="one image at a time"):
        own.classify(two, words())
