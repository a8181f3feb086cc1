"""The three variants beside what the official code made of the same synthetic weights and picture.

The golden convolutions ran with another build of torch: activations of a deviation of 50 differ by up to
3e-4 with the normalisation folded or not. A box multiplies that: a synthetic side is 62 times its anchor's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovperception.backbones.base import Features
from ovperception.proposals.official import convert_rpn, rpn_variant
from ovperception.proposals.rpn import OfflineRPN, RPNSettings, RPNVariant
from tests import synth

DATA = Path(__file__).parents[2] / "data" / "regionclip"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MANIFESTS = {"fpn": "zsinf_coco_rn50_RPN", "c4": "finetuned-coco_rn50", "lsj": "finetuned-lvis_rn50"}

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def golden() -> Mapping[str, NDArray[Any]]:
    with np.load(DATA / "golden_rpn.npz") as arrays:
        return dict(arrays)


def offline_state(variant: str) -> dict[str, Tensor]:
    manifest = json.loads((DATA / f"manifest_{MANIFESTS[variant]}.json").read_text())
    return synth.state_dict({k: v for k, v in manifest.items() if k.startswith("offline_")})


def assert_sampled(golden: Mapping[str, NDArray[Any]], name: str, found: Tensor) -> None:
    """Every sample within 2e-5 of the whole tensor's deviation, and so is the mean."""
    assert tuple(found.shape) == tuple(golden[f"{name}/shape"]), name
    tolerance = 2e-5 * float(golden[f"{name}/std"])
    samples = found.flatten()[torch.from_numpy(golden[f"{name}/idx"])].numpy()
    np.testing.assert_allclose(samples, golden[f"{name}/val"], rtol=0, atol=tolerance, err_msg=name)
    assert float(found.double().mean()) == pytest.approx(float(golden[f"{name}/mean"]), abs=tolerance), name


@pytest.mark.parametrize("variant", ["fpn", "c4", "lsj"])
@torch.no_grad()
def test_stage_by_stage(golden: Mapping[str, NDArray[Any]], variant: RPNVariant) -> None:
    state = offline_state(variant)
    assert rpn_variant(state) == variant
    settings = RPNSettings(variant=variant, nms_iou=0.9, post_nms_top_k=100)
    rpn = OfflineRPN(settings, mean=MEAN, std=STD)
    rpn.load_state_dict(convert_rpn(state, settings.variant))

    picture = torch.from_numpy(golden["image"]).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    images = (picture - mean) / std
    pixels = rpn.pixels(images)
    input_samples = pixels.flatten()[torch.from_numpy(golden[f"{variant}/input/idx"])].numpy()
    np.testing.assert_array_equal(input_samples, golden[f"{variant}/input/val"])

    levels = rpn.levels(pixels)
    for name, level in zip(
        ("res4",) if variant == "c4" else ("p2", "p3", "p4", "p5", "p6"), levels, strict=True
    ):
        assert_sampled(golden, f"{variant}/{name}", level)
    outputs = [rpn.head(level) for level in levels]
    for number, (objectness, deltas) in enumerate(outputs):
        assert_sampled(golden, f"{variant}/obj{number}", objectness)
        assert_sampled(golden, f"{variant}/delta{number}", deltas)

    found = rpn.select(outputs, (256, 320))[0]
    np.testing.assert_allclose(found.objectness.numpy(), golden[f"{variant}/prop_logits"], rtol=0, atol=5e-4)
    np.testing.assert_allclose(found.boxes.numpy(), golden[f"{variant}/prop_boxes"], rtol=0, atol=0.25)
    again = rpn.propose(Features(maps={}, image_size=(256, 320), images=images))[0]
    assert torch.equal(again.boxes, found.boxes)
    assert torch.equal(again.objectness, found.objectness)
