"""What an RPN promises whatever its weights: sizes, batches, borders, settings."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from ovperception.backbones.base import BackboneSpec, Features
from ovperception.errors import InvalidParameter
from ovperception.proposals import Proposals, Proposer, build_proposer
from ovperception.proposals.resnet50 import folded
from ovperception.proposals.rpn import OfflineRPN, RPNSettings

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def rpn(**settings: Any) -> OfflineRPN:
    torch.manual_seed(0)
    made = OfflineRPN(RPNSettings(**settings), mean=MEAN, std=STD)
    for name, parameter in made.named_parameters():
        if parameter.ndim > 1:
            gain = 0.02 if "deltas" in name else 0.2 if "expand" in name else 1.0
            torch.nn.init.normal_(parameter, std=gain * (2 / parameter[0].numel()) ** 0.5)
        else:
            torch.nn.init.zeros_(parameter)
    return made.requires_grad_(False)


def features(images: Tensor) -> Features:
    return Features(maps={}, image_size=(images.shape[2], images.shape[3]), images=images)


def pictures(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    whole = torch.randint(0, 256, (count, 3, height, width), generator=generator)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (whole / 255 - mean) / std


def spec() -> BackboneSpec:
    empty: dict[str, Any] = dict.fromkeys(("name", "digest", "text_digest"), "")
    empty |= {"family": "resnet", "stages": {}, "embed_dim": 8}
    return BackboneSpec(**empty, image_size=32, mean=MEAN, std=STD, logit_scale=100.0)


@pytest.mark.parametrize(
    ("variant", "strides"), [("fpn", (4, 8, 16, 32, 64)), ("c4", (16,)), ("lsj", (4, 8, 16, 32, 64))]
)
@pytest.mark.parametrize("size", [(64, 96), (61, 83), (33, 32)])
def test_odd_sizes(variant: str, strides: tuple[int, ...], size: tuple[int, int]) -> None:
    made = rpn(variant=variant)
    images = pictures(1, *size)
    levels = made.levels(made.pixels(images))
    padded = [-(-side // 32) * 32 for side in size] if variant != "c4" else size
    assert [tuple(level.shape[-2:]) for level in levels] == [
        tuple(-(-side // stride) for side in padded) for stride in strides
    ]
    (found,) = made.propose(features(images))
    assert isinstance(found, Proposals)
    assert 0 < len(found) <= 1000
    assert found.boxes.min() >= 0
    assert found.boxes[:, 0::2].max() <= size[1]
    assert found.boxes[:, 1::2].max() <= size[0]
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (found.objectness.diff() <= 0).all()


@pytest.mark.parametrize("variant", ["fpn", "c4"])
def test_a_batch_is_its_images(variant: str) -> None:
    made = rpn(variant=variant, post_nms_top_k=50)
    images = pictures(3, 64, 80)
    for index, together in enumerate(made.propose(features(images))):
        (alone,) = made.propose(features(images[index : index + 1]))
        torch.testing.assert_close(together.boxes, alone.boxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(together.objectness, alone.objectness, rtol=1e-4, atol=1e-4)


def test_pixels_are_the_picture_again() -> None:
    made = rpn(variant="fpn")
    generator = torch.Generator().manual_seed(3)
    whole = torch.randint(0, 256, (2, 3, 40, 50), generator=generator).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    pixels = made.pixels((whole / 255 - mean) / std)
    expected = whole.flip(1) - torch.tensor([103.53, 116.28, 123.675]).view(1, 3, 1, 1)
    assert pixels.shape == (2, 3, 64, 64)
    assert torch.equal(pixels[:, :, :40, :50], expected)
    assert not pixels[:, :, 40:].any()
    assert not pixels[..., 50:].any()


def logits_and_deltas(count: int) -> tuple[Tensor, Tensor]:
    """One row of `count` cells of res4 whose 15 anchors are exactly the proposals."""
    logits = torch.full((1, 15, 1, count), -100.0)
    return logits, torch.zeros(1, 60, 1, count)


def test_of_two_that_overlap_the_likelier_stays() -> None:
    logits, deltas = logits_and_deltas(4)
    logits[0, 1, 0] = torch.tensor([1.0, 2.0, 3.0, float("nan")])  # squares of 32, 16 pixels apart
    made = rpn(variant="c4", nms_iou=0.3, pre_nms_top_k=4)
    (found,) = made.select([(logits, deltas)], (64, 64))
    # 3 and 2 share 16 x 16 of (32 + 32 - 16) x 16 visible pixels: an IoU of exactly 1/3
    assert found.objectness.tolist() == [3.0, 1.0]
    assert found.boxes.tolist() == [[16, 0, 48, 16], [0, 0, 16, 16]]
    (all_three,) = rpn(variant="c4", nms_iou=0.6, pre_nms_top_k=4).select([(logits, deltas)], (64, 64))
    assert all_three.objectness.tolist() == [3.0, 2.0, 1.0]
    (one,) = rpn(variant="c4", pre_nms_top_k=4, post_nms_top_k=1).select([(logits, deltas)], (64, 64))
    assert one.objectness.tolist() == [3.0]


def test_an_image_may_have_none() -> None:
    made = rpn(variant="c4", pre_nms_top_k=3)
    logits, deltas = logits_and_deltas(3)
    deltas[:, 0::4] = 1e6  # everything lies to the right of the picture
    (found,) = made.select([(logits, deltas)], (64, 64))
    assert found.boxes.shape == (0, 4)
    assert found.objectness.shape == (0,)


def test_folding_is_the_normalisation() -> None:
    convolution = torch.nn.Conv2d(3, 8, 3, bias=False)
    norm = torch.nn.BatchNorm2d(8).eval()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.5, 2)
    weight, bias = folded(
        convolution.weight,
        scale=norm.weight,
        shift=norm.bias,
        mean=norm.running_mean,
        variance=norm.running_var,
    )
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(torch.nn.functional.conv2d(x, weight, bias), norm(convolution(x)))


def test_features_without_pixels_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="looks at pixels"):
        rpn(variant="c4").propose(Features(maps={}, image_size=(32, 32)))


def test_settings_go_round() -> None:
    settings = RPNSettings(variant="lsj", nms_iou=0.7, post_nms_top_k=300)
    assert RPNSettings.from_dict(settings.to_dict()) == settings
    assert [RPNSettings(variant=v).candidates for v in ("fpn", "lsj", "c4")] == [1000, 1000, 6000]
    assert dataclasses.replace(settings, pre_nms_top_k=7).candidates == 7
    with torch.device("meta"):
        built = build_proposer(settings.to_dict(), spec())
    assert isinstance(built, OfflineRPN)
    assert isinstance(built, Proposer)
    assert built.settings == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "selective_search"}, "one of rpn"),
        ({}, "one of rpn"),
        ({"kind": "rpn", "variant": "c5"}, "fpn, c4, lsj"),
        ({"kind": "rpn", "depth": 50}, "Unknown settings.*depth"),
        ({"kind": "rpn", "nms_iou": 1.5}, "nms_iou"),
        ({"kind": "rpn", "nms_iou": "much"}, "nms_iou"),
        ({"kind": "rpn", "post_nms_top_k": 0}, "post_nms_top_k"),
        ({"kind": "rpn", "pre_nms_top_k": 2.5}, "pre_nms_top_k"),
    ],
)
def test_what_cannot_be_built_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        build_proposer(settings, spec())
