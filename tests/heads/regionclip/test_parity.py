"""Equality with the official code, stage by stage, from its golden files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from heads.regionclip import PRESETS, RegionCLIP, official_name
from ovperception.backbones import ClipBackbone
from ovperception.backbones.region_align import RegionWeights
from ovperception.backbones.regions import as_rois
from ovperception.backbones.resnet import roi_maps
from ovperception.backbones.tokenizer import TruncatedBPE, as_tokenizer
from ovperception.head import RegionEncoding
from ovperception.images import Geometry
from ovperception.postprocess import boxes as box_detections
from ovperception.preprocess import Preprocessing
from ovperception.structures import Detections
from ovperception.templates import resolve_templates
from ovperception.text import TextEncoder
from ovperception.text_cache import EmbeddingCache
from tests.heads.regionclip.conftest import (
    DATA,
    Golden,
    Official,
    golden,
    network_input,
    synthetic_text_tower,
    text_of,
)

pytestmark = pytest.mark.parity

# Largest difference, float32, relative to the largest value of the stage. The backbone and the regions are
# the same operations; the attention pool computes its one query in another order; a logit is a cosine times
# 100, and a small probability keeps the absolute error of its logit as a relative one.
TOLERANCE = {
    "input": 1e-6,
    "maps": 1e-5,
    "regions": 1e-5,
    "embeddings": 1e-5,
    "logits": 1e-5,
    "probabilities": 1e-5,
    "deltas": 1e-5,
    "boxes": 1e-5,
    "scores": 1e-5,
    "text": 1e-5,
}
SIZE = (256, 320)


def assert_close(found: Any, reference: NDArray[Any], stage: str, *, each: bool = False) -> None:
    """Compare by the stage's tolerance, relative to the largest value, or to `each`."""
    tolerance = TOLERANCE[stage]
    scale = float(np.abs(reference).max())
    relative, absolute = (tolerance, 1e-7) if each else (0.0, tolerance * scale)
    np.testing.assert_allclose(np.asarray(found), reference, rtol=relative, atol=absolute, err_msg=stage)


def assert_samples(golden: Golden, name: str, found: Tensor, stage: str) -> None:
    """Compare a tensor with the samples and the statistics kept of the official one."""
    assert tuple(golden[f"{name}/shape"]) == tuple(found.shape)
    values = found.detach().reshape(-1).numpy()
    assert_close(values[golden[f"{name}/idx"]], golden[f"{name}/val"], stage)
    scale = float(np.abs(golden[f"{name}/val"]).max())
    assert abs(values.mean(dtype=np.float64) - golden[f"{name}/mean"]) < TOLERANCE[stage] * scale
    assert abs(values.std(dtype=np.float64) - golden[f"{name}/std"]) < TOLERANCE[stage] * scale


def assert_detections(golden: Golden, name: str, found: Detections) -> None:
    """Labels and order exactly, boxes and scores by their tolerances."""
    np.testing.assert_array_equal(found.class_ids, golden[f"{name}/classes"])
    assert_close(found.boxes, golden[f"{name}/boxes"], "boxes")
    assert_close(found.scores, golden[f"{name}/scores"], "scores", each=True)


def detect(
    official: Official, encoding: RegionEncoding, head: RegionCLIP, preset: str, original: tuple[int, int]
) -> Detections:
    defaults = PRESETS[preset].defaults()
    text = official.text
    return box_detections(
        head.classify(encoding, text),
        Geometry(original=original, resized=SIZE, padded=SIZE),
        text.vocabulary,
        score_threshold=defaults["score_threshold"],
        iou_threshold=defaults["nms_iou_threshold"],
        max_detections=int(defaults["max_detections"]),
    )


@torch.inference_mode()
def test_maps_and_regions(rn50: Official) -> None:
    golden, visual = rn50.golden, rn50.backbone.model.visual
    mean, std = rn50.backbone.spec.mean, rn50.backbone.spec.std
    preprocessing = Preprocessing(
        mean=(255 * mean[0], 255 * mean[1], 255 * mean[2]),
        std=(255 * std[0], 255 * std[1], 255 * std[2]),
        multiple=1,
    )
    assert_samples(golden, "input", preprocessing.apply(golden["image"])[0][None], "input")
    features = rn50.features()
    for stage in ("res2", "res4"):
        assert_samples(golden, stage, features[stage], "maps")
    res4 = features["res4"]
    size = (int(res4.shape[2]), int(res4.shape[3]))
    crops = RegionWeights.of(as_rois([rn50.boxes], res4.device), 14, size, 1 / 16).align(res4)
    assert_samples(golden, "roi", crops, "regions")
    (maps,) = roi_maps(visual, res4, [rn50.boxes])
    assert_samples(golden, "layer4", maps, "regions")
    assert_samples(golden, "layer4", next(rn50.backbone.box_maps(features, [rn50.boxes])), "regions")


@torch.inference_mode()
def test_embeddings_and_scores(rn50: Official) -> None:
    golden, head = rn50.golden, rn50.head()
    encoding = head.encode(rn50.backbone, rn50.features())
    assert_close(encoding.embeddings[0], golden["feat"], "embeddings")
    assert_close(F.normalize(encoding.embeddings[0], dim=-1), golden["feat_norm"], "embeddings")
    logits = head.class_logits(encoding.embeddings[0], rn50.text)
    assert_close(logits, golden["logits"], "logits")
    assert bool((logits[:, -1] == 0).all())
    assert_close(logits.softmax(-1), golden["probs"], "probabilities", each=True)
    assert_close(
        head.classify(encoding, rn50.text).scores, golden["probs"][:, :-1], "probabilities", each=True
    )


@torch.inference_mode()
def test_rows_need_not_be_of_unit_length(rn50: Official) -> None:
    rows = rn50.golden["text_emb"] * np.linspace(0.5, 5, 6, dtype=np.float32)[:, None]
    logits = rn50.head().class_logits(torch.from_numpy(rn50.golden["feat"]), text_of(rows))
    assert_close(logits, rn50.golden["logits"], "logits")


@pytest.mark.parametrize(
    ("name", "preset", "original"),
    [("det_gt_coco", "coco_zero_shot", SIZE), ("det_gt_coco_rescaled2x", "coco_zero_shot", (512, 640))],
)
@torch.inference_mode()
def test_given_boxes(rn50: Official, name: str, preset: str, original: tuple[int, int]) -> None:
    head = rn50.head(preset)
    encoding = head.encode_boxes(rn50.backbone, rn50.features(), [rn50.boxes])
    assert encoding.objectness is None
    assert_detections(rn50.golden, name, detect(rn50, encoding, head, preset, original))


@pytest.mark.parametrize(
    ("name", "preset", "changes"),
    [
        ("det_rpn_coco_nomul", "coco_zero_shot", {"objectness": "none"}),
        ("det_rpn_coco_mul", "coco_zero_shot", {}),
        ("det_rpn_lvis_mul", "lvis_zero_shot", {}),
        ("det_rpn_customimg_vis", "custom_images", {}),
        ("det_ft_coco_hard", "coco_finetuned", {"suppression": "hard"}),
        ("det_ft_coco_soft", "coco_finetuned", {}),
        ("det_ft_lvis_mul_soft", "lvis_finetuned", {}),
    ],
)
@torch.inference_mode()
def test_published_configurations(rn50: Official, name: str, preset: str, changes: dict[str, str]) -> None:
    head = rn50.head(preset, **changes)
    encoding = head.encode(rn50.backbone, rn50.features())
    assert_detections(rn50.golden, name, detect(rn50, encoding, head, preset, SIZE))


@torch.inference_mode()
def test_box_deltas(rn50: Official) -> None:
    golden, head = rn50.golden, rn50.head("coco_finetuned")
    assert head.bbox_pred is not None
    assert_close(head.bbox_pred(torch.from_numpy(golden["feat"])), golden["ft/deltas"], "deltas")
    encoding = head.encode(rn50.backbone, rn50.features())
    assert_close(encoding.boxes[0], golden["ft/boxes_decoded"], "boxes")


@torch.inference_mode()
def test_odd_sizes(rn50: Official) -> None:
    """Strides floor, and the scale of the regions stays 1/16."""
    golden, head = rn50.golden, rn50.head()
    features = rn50.features("odd/image")
    assert_samples(golden, "odd/res4", features["res4"], "maps")
    encoding = head.encode_boxes(rn50.backbone, features, [rn50.boxes])
    assert_close(encoding.embeddings[0], golden["odd/feat"], "embeddings")
    assert_close(head.class_logits(encoding.embeddings[0], rn50.text), golden["odd/logits"], "logits")
    size = (251, 333)
    found = box_detections(
        head.classify(encoding, rn50.text),
        Geometry(original=size, resized=size, padded=size),
        rn50.text.vocabulary,
        score_threshold=PRESETS["coco_zero_shot"].given_boxes_score_threshold,
    )
    assert_detections(golden, "odd/det_gt_coco", found)


@torch.inference_mode()
def test_a_batch_is_its_images(rn50: Official) -> None:
    """A deliberate deviation: the official batch pads both pictures to one size, which changes both."""
    golden, head = rn50.golden, rn50.head()
    alone = [golden["feat"], golden["odd/feat"]]
    leaked = np.split(golden["batch2/feat"], 2)
    for image, mine, official in zip(("image", "odd/image"), alone, leaked, strict=True):
        pixels = network_input(golden[image])
        features = rn50.backbone.features(torch.cat([pixels, pixels.flip(3)]))
        encoding = head.encode_boxes(rn50.backbone, features, [rn50.boxes, rn50.boxes[:5]])[0]
        assert_close(encoding.embeddings[0], mine, "embeddings")
        assert np.abs(encoding.embeddings[0].numpy() - official).max() > 0.03


class Recorder:
    """A text tower that remembers what it gave."""

    def __init__(self, tower: ClipBackbone) -> None:
        self.tower = tower
        self.spec = tower.spec
        self.given: list[Tensor] = []

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        self.given.append(self.tower.embed_text(prompts))
        return self.given[-1]


class TestText:
    """The mean over 81 sentences of what the tower gives, not normalised before the classifier."""

    @pytest.mark.parametrize(
        ("arch", "count"),
        [
            ("RN50", 1),
            pytest.param("RN50", 6, marks=pytest.mark.slow),
            pytest.param("RN50x4", 6, marks=pytest.mark.slow),
        ],
    )
    def test_embeddings(self, arch: str, count: int) -> None:
        words, kind = golden("golden_text"), arch.lower()
        tower = Recorder(synthetic_text_tower(arch))
        encoder = TextEncoder(tower, cache=EmbeddingCache(), templates="regionclip_81", rule="raw_mean")
        found = encoder.embed([official_name(n) for n in words["names"][:count].tolist()])
        assert_close(found, words[f"{kind}/emb_norm"][:count], "text")
        raw = torch.cat(tower.given).unflatten(0, (count, 81))
        assert_close(raw.mean(1), words[f"{kind}/emb"][:count], "text")
        assert_close(raw[:, :3], words[f"{kind}/per_template_first3"][:count], "text")

    def test_tokens(self) -> None:
        words = golden("golden_text")
        tokenizer = as_tokenizer(TruncatedBPE(), 77)
        templates = resolve_templates("regionclip_81")
        assert list(templates) == json.loads((DATA / "prompt_templates.json").read_text())
        for names, tokens in (("names", "tokens"), ("extra_names", "extra_tokens")):
            for name, reference in zip(words[names].tolist(), words[tokens], strict=True):
                # Every spelling but one comes without LVIS's parentheses already.
                spelled = name if "(" in name else official_name(name)
                found = tokenizer([t.replace("{}", spelled) for t in templates])
                np.testing.assert_array_equal(found.ids, reference)

    def test_lvis_spelling(self) -> None:
        assert official_name("hot-dog,_with_mustard_(large)") == "hot-dog with mustard large"
