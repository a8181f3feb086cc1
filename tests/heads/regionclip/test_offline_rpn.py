"""Picture to detections: the offline RPN's proposals, the region features, the words, the suppression.

The proposals differ from the golden's by up to 0.2 pixels, because a synthetic box is 62 times its anchor and
multiplies the rounding of 50 convolutions; the scores follow. Labels and order are the same.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from heads.regionclip import PRESETS, RegionCLIP, RegionCLIPConfig
from ovperception.images import Geometry
from ovperception.postprocess import boxes as box_detections
from ovperception.proposals.official import convert_rpn, rpn_variant
from ovperception.proposals.rpn import OfflineRPN, RPNSettings
from tests import synth
from tests.heads.regionclip.conftest import DATA, Official, golden, text_of

pytestmark = pytest.mark.parity

SIZE = (256, 320)
MANIFESTS = {"fpn": "zsinf_coco_rn50_RPN", "c4": "finetuned-coco_rn50", "lsj": "finetuned-lvis_rn50"}


def offline_rpn(variant: str, official: Official) -> OfflineRPN:
    manifest = json.loads((DATA / f"manifest_{MANIFESTS[variant]}.json").read_text())
    state = synth.state_dict({k: v for k, v in manifest.items() if k.startswith("offline_")})
    found = rpn_variant(state)
    assert found == variant
    spec = official.backbone.spec
    settings = RPNSettings(variant=found, nms_iou=0.9, post_nms_top_k=100)  # as the golden was made
    rpn = OfflineRPN(settings, mean=spec.mean, std=spec.std)
    rpn.load_state_dict(convert_rpn(state, found))
    return rpn


@pytest.mark.parametrize(
    ("variant", "preset"),
    [
        ("fpn", "coco_zero_shot"),
        pytest.param("c4", "coco_zero_shot", marks=pytest.mark.slow),
        pytest.param("lsj", "lvis_zero_shot", marks=pytest.mark.slow),
    ],
)
@torch.inference_mode()
def test_end_to_end(rn50: Official, variant: str, preset: str) -> None:
    reference = golden("golden_rpn")
    text = text_of(reference["text_emb"])
    np.testing.assert_array_equal(reference["image"], rn50.golden["image"])
    rpn = offline_rpn(variant, rn50)
    encoding = None
    for name, rule in (("det_mul", "sqrt_raw"), ("det_nomul", "none")):
        settings = PRESETS[preset].head_settings() | {"objectness": rule, "embed_dim": 1024}
        head = RegionCLIP(RegionCLIPConfig.from_dict(settings), rpn).eval()
        encoding = encoding or head.encode(rn50.backbone, rn50.features())
        found = box_detections(
            head.classify(encoding, text),
            Geometry(original=SIZE, resized=SIZE, padded=SIZE),
            text.vocabulary,
            score_threshold=PRESETS[preset].score_threshold,
            iou_threshold=PRESETS[preset].nms_iou_threshold,
            max_detections=PRESETS[preset].max_detections,
        )
        np.testing.assert_array_equal(found.class_ids, reference[f"{variant}/{name}/classes"])
        np.testing.assert_allclose(found.boxes, reference[f"{variant}/{name}/boxes"], rtol=0, atol=0.25)
        np.testing.assert_allclose(found.scores, reference[f"{variant}/{name}/scores"], rtol=5e-3)
