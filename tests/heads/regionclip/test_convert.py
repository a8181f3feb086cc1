"""Official checkpoints: every key is accounted for, parts are merged without loss, words stay free."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import ovperception
from heads.regionclip import PRESETS, RegionCLIP
from heads.regionclip import convert as conversion
from heads.regionclip.convert import convert, convert_state
from ovperception import cli
from ovperception.backbones import build_open_clip, from_open_clip
from ovperception.bundle import read_bundle
from ovperception.catalogue import entries
from ovperception.conversion import Companions
from ovperception.errors import InvalidCheckpoint, Unavailable
from ovperception.proposals.rpn import OfflineRPN, RPNSettings
from ovperception.text import TextEncoder
from ovperception.text_cache import EmbeddingCache
from tests import synth

DATA = Path(__file__).parents[2] / "data" / "regionclip"
NONE = Companions()

Manifest = Mapping[str, tuple[list[int], str]]


def manifest(name: str) -> Manifest:
    found: Manifest = json.loads((DATA / f"manifest_{name}.json").read_text(encoding="utf-8"))
    return found


def blank(name: str) -> dict[str, Tensor]:
    """An official state dict that takes no memory."""
    return {
        key: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)
        for key, (shape, dtype) in manifest(name).items()
    }


def head_shapes(converted: conversion.ConvertedCheckpoint) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        settings = converted.config.proposer
        rpn = settings and OfflineRPN(RPNSettings.from_dict(settings), mean=(0, 0, 0), std=(1, 1, 1))
        head = RegionCLIP(converted.config, rpn or None)
    return {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "arch", "kind", "rpn", "has_text"),
    [
        ("pretrained-cc_rn50", "RN50", "zero_shot", "fpn", True),
        ("pretrained-cc_rn50x4", "RN50x4", "zero_shot", "fpn", True),
        ("conceptemb_rn50", "RN50", "zero_shot", "fpn", True),
        ("zsinf_coco_rn50_GT", "RN50", "zero_shot", None, False),
        ("zsinf_coco_rn50_RPN", "RN50", "zero_shot", "fpn", False),
        ("zsinf_lvis_rn50_RPN", "RN50", "zero_shot", "fpn", False),
        ("zsinf_coco_rn50x4_RPN", "RN50x4", "zero_shot", "fpn", False),
        ("finetuned-coco_rn50", "RN50", "coco_finetuned", "c4", False),
        ("finetuned-coco_rn50x4", "RN50x4", "coco_finetuned", "c4", False),
        ("finetuned-lvis_rn50", "RN50", "lvis_finetuned", "lsj", False),
        ("finetuned-lvis_rn50x4", "RN50x4", "lvis_finetuned", "lsj", False),
    ],
)
def test_every_published_file(name: str, arch: str, kind: str, rpn: str | None, has_text: bool) -> None:
    converted = convert_state(blank(name))
    assert (converted.arch, converted.kind) == (arch, kind)
    assert (converted.config.proposer or {}).get("variant") == rpn
    assert converted.config.box_deltas == (kind != "zero_shot")
    assert converted.config.masks == (kind == "lvis_finetuned")
    assert {k: tuple(v.shape) for k, v in converted.head_state.items()} == head_shapes(converted)
    expected = blank_clip(arch)
    if not has_text:
        expected = {k: s for k, s in expected.items() if k.startswith("visual.") or k == "logit_scale"}
    assert {k: tuple(v.shape) for k, v in converted.backbone_state.items()} == expected
    # What is read and what is left out on purpose make up the whole file.
    left_out = {
        "teacher_backbone.": True,
        "roi_heads.box_predictor.bbox_pred.": kind == "zero_shot",
        "roi_heads.box_predictor.cls_": True,
        "roi_heads.box_predictor.test_cls_": True,
    }
    prefixes = tuple(prefix for prefix, is_left_out in left_out.items() if is_left_out)
    kept = {k for k in manifest(name) if not k.startswith(prefixes) and "num_batches" not in k}
    assert converted.keys_read == len(kept)


def blank_clip(arch: str) -> dict[str, tuple[int, ...]]:
    config = open_clip.get_model_config(f"{arch}-quickgelu")
    assert config is not None
    with torch.device("meta"):
        model, _ = build_open_clip(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_the_catalogue_describes_what_is_converted() -> None:
    found = {e.name: e for e in entries().values() if e.head == "regionclip"}
    assert set(found) == set(conversion._ENTRY.values())
    for (kind, arch), name in conversion._ENTRY.items():
        assert found[name].backbone == f"open_clip:{arch}-quickgelu"
        assert found[name].defaults == PRESETS[conversion._PRESET[kind]].defaults()
    converted = convert_state(blank("finetuned-lvis_rn50"))
    parameters = sum(tensor.numel() for tensor in converted.head_state.values())
    assert parameters == found["regionclip-lvis-rn50"].parameters
    assert PRESETS["coco_finetuned"].proposer == "c4"
    assert converted.config.proposer == PRESETS["lvis_finetuned"].proposer_settings()


@pytest.mark.parametrize(("name", "variant"), [("rpn_lvis_866", "fpn"), ("rpn_coco_48", "c4")])
def test_two_checkpoints_are_one(name: str, variant: str) -> None:
    """The RPN comes from its own file; the image tower keeps its statistics, which are not 0 and 1."""
    state = blank("pretrained-cc_rn50")
    statistics = {k: synth.tensor(k, state[k].shape) for k in state if "running_" in k}
    alone = blank(name)
    alone["proposal_generator.rpn_head.anchor_deltas.bias"] = torch.arange(
        float(len(alone["proposal_generator.rpn_head.anchor_deltas.bias"]))
    )
    converted = convert_state(state | statistics, rpn_state=alone)
    assert converted.config.proposer == {"kind": "rpn", "variant": variant, "nms_iou": 0.9}
    assert torch.equal(
        converted.head_state["proposer.head.deltas.bias"],
        alone["proposal_generator.rpn_head.anchor_deltas.bias"],
    )
    checked = 0
    for key, value in statistics.items():
        if key.startswith("backbone."):
            assert torch.equal(converted.backbone_state[f"visual.{key.removeprefix('backbone.')}"], value)
            checked += 1
    assert checked == 2 * 55


def test_what_is_wrong_is_listed() -> None:
    state = blank("finetuned-lvis_rn50")
    for block in range(6):
        for kind in ("weight", "bias"):
            del state[f"backbone.layer3.{block}.bn1.{kind}"]
    del state["offline_backbone.fpn_lateral2.norm.running_var"]
    state["roi_heads.mask_head.mask_fcn1.weight"] = torch.zeros(256, 256, 3, 3)
    state["backbone.surprise"] = torch.zeros(1)
    state["roi_heads.box_predictor.bbox_pred.weight"] = torch.zeros(4, 7)
    state["roi_heads.box_predictor.test_cls_score.weight"] = torch.zeros(1203, 640)
    with pytest.raises(InvalidCheckpoint) as caught:
        convert_state(state)
    message = str(caught.value)
    for part in (
        "13 missing (backbone.layer3.0.bn1.bias, ",
        "...",
        "2 unexpected (backbone.surprise, roi_heads.mask_head.mask_fcn1.weight)",
        "2 misshaped (roi_heads.box_predictor.bbox_pred.weight (4, 7) instead of (4, 1024), ",
        "test_cls_score.weight (1203, 640) instead of (1203, 1024)",
    ):
        assert part in message


def test_half_a_text_tower_or_teacher_is_not_taken_for_none() -> None:
    state = blank("pretrained-cc_rn50")
    del state["lang_encoder.ln_final.bias"]
    del state["teacher_backbone.conv1.weight"]
    del state["offline_proposal_generator.rpn_head.objectness_logits.weight"]
    with pytest.raises(InvalidCheckpoint, match="3 missing"):
        convert_state(state)


def test_other_checkpoints_are_named() -> None:
    with pytest.raises(InvalidCheckpoint, match=r"an RPN alone.*--rpn"):
        convert_state(blank("rpn_coco_48"))
    with pytest.raises(InvalidCheckpoint, match="no RegionCLIP checkpoint"):
        convert_state({"conv.weight": torch.zeros(1)})
    odd = blank("pretrained-cc_rn50") | {"backbone.attnpool.c_proj.weight": torch.zeros(512, 2048)}
    with pytest.raises(InvalidCheckpoint, match="no published RegionCLIP size"):
        convert_state(odd)
    with pytest.raises(InvalidCheckpoint, match="holds no RPN"):
        convert_state(blank("pretrained-cc_rn50"), rpn_state=blank("zsinf_coco_rn50_GT"))
    broken = blank("rpn_lvis_866")
    del broken["backbone.fpn_output4.bias"]
    with pytest.raises(InvalidCheckpoint, match=r"does not fit an RPN \(fpn\): 1 missing .*fpn_output4.bias"):
        convert_state(blank("pretrained-cc_rn50"), rpn_state=broken)


def test_any_number_of_classes_and_none_of_them_kept(caplog: pytest.LogCaptureFixture) -> None:
    state = blank("finetuned-coco_rn50")
    state["roi_heads.box_predictor.cls_score.weight"] = torch.ones(7, 1024)
    state["roi_heads.box_predictor.test_cls_score.weight"] = torch.ones(9, 1024)
    with caplog.at_level(logging.WARNING):
        converted = convert_state(state)
    assert not caplog.records
    assert not any("cls" in name for name in converted.head_state)
    state["roi_heads.box_predictor.cls_bg_score.weight"] = torch.ones(1, 1024)
    convert_state(state)
    assert "cls_bg_score" in caplog.text


def test_a_text_tower_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise Unavailable("No network")

    monkeypatch.setattr(conversion, "load_backbone", nowhere)
    path = tmp_path / "regionclip_finetuned-coco_rn50.pth"
    torch.save({"model": blank("finetuned-coco_rn50")}, path)
    with pytest.raises(Unavailable, match=r"no text tower.*--clip") as caught:
        convert(path, vocabulary=None, companions=NONE)
    assert caught.value.field == "clip"

    pretrained = blank("pretrained-cc_rn50")
    pretrained["lang_encoder.ln_final.bias"] = torch.arange(512.0)
    torch.save(pretrained, tmp_path / "pretrained.pth")
    converted = convert(path, vocabulary=None, companions=Companions(clip=tmp_path / "pretrained.pth"))
    assert torch.equal(converted.backbone_state["ln_final.bias"], torch.arange(512.0))
    assert {k: tuple(v.shape) for k, v in converted.backbone_state.items()} == blank_clip("RN50")
    assert converted.about.name == "regionclip-coco-rn50"
    assert converted.keys_read == 507 + 149

    torch.save(blank("pretrained-cc_rn50x4"), tmp_path / "larger.pth")
    with pytest.raises(InvalidCheckpoint, match="does not fit RN50"):
        convert(path, vocabulary=None, companions=Companions(clip=tmp_path / "larger.pth"))


def test_a_text_tower_of_openai(tmp_path: Path) -> None:
    config = open_clip.get_model_config("RN50-quickgelu")
    assert config is not None
    with torch.device("meta"):
        model, _ = build_open_clip(config)
    clip = {k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in model.state_dict().items()}
    clip["ln_final.bias"] = torch.arange(512.0)
    torch.save(clip, tmp_path / "RN50.pt")
    torch.save(blank("finetuned-coco_rn50"), tmp_path / "tuned.pth")
    converted = convert(
        tmp_path / "tuned.pth", vocabulary=None, companions=Companions(clip=tmp_path / "RN50.pt")
    )
    assert torch.equal(converted.backbone_state["ln_final.bias"], torch.arange(512.0))


@pytest.mark.parity
def test_text_embeddings_are_the_official_ones(tmp_path: Path) -> None:
    """lang_encoder through the converter, 81 templates averaged as they are: 81 prompts a word."""
    with np.load(DATA / "golden_text.npz") as arrays:
        golden = dict(arrays)
    state = blank("pretrained-cc_rn50")
    state |= {k: synth.tensor(k, v.shape) for k, v in state.items() if k.startswith("lang_encoder.")}
    config = open_clip.get_model_config("RN50-quickgelu")
    assert config is not None
    model, tokenizer = build_open_clip(config)
    model.load_state_dict(convert_state(state).backbone_state)
    backbone = from_open_clip(model, "open_clip:RN50-quickgelu", tokenizer=tokenizer)
    encoder = TextEncoder(
        backbone, templates="regionclip_81", rule="raw_mean", cache=EmbeddingCache(tmp_path / "cache")
    )
    name = str(golden["names"][0])
    found = encoder.embed([name]).numpy()
    np.testing.assert_allclose(found[0], golden["rn50/emb_norm"][0], atol=1e-5)


@pytest.mark.slow  # half a gigabyte is written and read: 100 seconds and more on a busy core
def test_from_file_to_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command, a bundle, a model: zero-shot from two files, then fine-tuned with another text tower."""
    pretrained = synth.state_dict(manifest("pretrained-cc_rn50"))
    tuned = synth.state_dict(manifest("finetuned-lvis_rn50"))
    for state in (pretrained, tuned):
        for key in [k for k in state if k.endswith("cls_bg_score.weight")]:
            state[key] = torch.zeros_like(state[key])
    torch.save({"model": pretrained}, tmp_path / "pretrained.pth")
    torch.save({"model": synth.state_dict(manifest("rpn_lvis_866")), "iteration": 3}, tmp_path / "rpn.pth")
    save_file(tuned, tmp_path / "tuned.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    for checkpoint, more, name in (
        ("pretrained.pth", ("--rpn", tmp_path / "rpn.pth"), "regionclip-rn50"),
        ("tuned.safetensors", ("--clip", tmp_path / "pretrained.pth"), "regionclip-lvis-rn50"),
    ):
        out = tmp_path / "b.safetensors"
        arguments = [
            tmp_path / checkpoint,
            "--format",
            "regionclip",
            "--out",
            out,
            "--json",
            "--force",
            *more,
        ]
        assert cli.main(["convert", *map(str, arguments)]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["name"] == told["published"] == name
        model = ovperception.load(out)
        assert told["backbone"] == {
            "name": "open_clip:RN50-quickgelu", "digest": model.spec.digest, "included": True
        }  # fmt: skip
        assert model.card.template_rule == model.text.rule == "raw_mean"
        assert any("Completed by" in line for line in model.card.verified)
        for ours, theirs in (("visual.bn1.running_mean", "backbone.bn1.running_mean"),):
            state = pretrained if checkpoint == "pretrained.pth" else tuned
            assert torch.equal(read_bundle(out).part("backbone")[ours], state[theirs])
        words: list[Any] = ["dog", "traffic light|stoplight", "grass"]
        boxes = [[10, 10, 60, 80], [0, 0, 128, 96]]
        found = model.encode(image).detect(words, boxes=boxes, score_threshold=0.0)
        assert set(found.names) <= {"dog", "traffic light", "grass"}
        assert len(found) > 0
    status = cli.main(["convert", *map(str, arguments), "--reference-backbone"])
    assert status == 2
    assert "published nowhere else" in capsys.readouterr().err
