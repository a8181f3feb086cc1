"""Recipes: overriding settings, and a whole run in miniature through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ovperception.cli import app
from ovperception.errors import InvalidParameter, MissingFile
from ovperception.training.recipes import RECIPES, tiny_clip, tiny_fcclip, tiny_regionclip, with_overrides


def test_settings_are_overridden_in_their_own_type() -> None:
    changed = with_overrides(
        tiny_fcclip(),
        {
            "steps": "7",
            "out": "x/y",
            "size": "128x96",
            "bfloat16": "true",
            "settings.queries": "9",
            "minutes": "2",
        },
    )
    assert changed.schedule.steps == 7
    assert changed.schedule.minutes == 2.0
    assert changed.out == Path("x/y")
    assert changed.size == (128, 96)
    assert changed.bfloat16 is True
    assert changed.settings["queries"] == 9
    assert with_overrides(tiny_clip(), {"cells": "12"}).sampler.cells == 12


@pytest.mark.parametrize(
    ("key", "value"), [("nonsense", "1"), ("steps", "many"), ("bfloat16", "perhaps"), ("schedule", "1")]
)
def test_bad_overrides_name_the_setting(key: str, value: str) -> None:
    with pytest.raises(InvalidParameter, match=key):
        with_overrides(tiny_clip(), {key: value})


def test_region_and_mask_heads_stand_on_one_clip() -> None:
    masks, boxes = tiny_fcclip(), tiny_regionclip()
    assert (masks.backbone, masks.config, masks.templates) == (boxes.backbone, boxes.config, boxes.templates)
    assert masks.out != boxes.out


def test_novel_classes_are_kept_from_the_head() -> None:
    from ovperception.datasets.scenes import load_categories

    seen = set(tiny_fcclip().settings["seen_words"])
    assert not any(seen & set(c.names) for c in load_categories() if c.is_novel)


def test_the_recipes_run_from_the_command_line_to_a_bundle_that_answers(tmp_path: Path) -> None:
    runner = CliRunner()
    clip, head = tmp_path / "clip", tmp_path / "head"
    first = runner.invoke(app, ["train", "tiny-clip", f"out={clip}", "steps=1", "cells=8", "workers=0"])
    assert first.exit_code == 0, first.output
    scenic = tmp_path / "scenic"
    words = [f"out={scenic}", f"clip={clip / 'clip.safetensors'}", "steps=2", "megapixels=0.2", "workers=0"]
    second = runner.invoke(app, ["train", "tiny-clip-scenes", *words])
    assert second.exit_code == 0, second.output
    _both_towers_learned_and_early_stages_stayed(clip / "clip.safetensors", scenic / "clip.safetensors")
    words = [f"out={head}", f"backbone={scenic / 'clip.safetensors'}", "steps=1", "batch_size=1", "size=64"]
    words += ["workers=0", "settings.queries=6", "settings.hidden_dim=32", "settings.mask_dim=32"]
    third = runner.invoke(app, ["train", "tiny-fcclip", *words])
    assert third.exit_code == 0, third.output

    import numpy as np

    import ovperception

    model = ovperception.load(head / "tiny.safetensors")
    scene = model.encode(np.zeros((64, 80, 3), np.uint8))
    assert scene.semantic(["grass", "sky"]).labels.shape == (64, 80)
    assert model.tasks == {"detect", "semantic", "panoptic"}

    boxes = tmp_path / "boxes"
    words = [f"out={boxes}", f"backbone={scenic / 'clip.safetensors'}", "steps=1", "batch_size=1", "size=64"]
    fourth = runner.invoke(app, ["train", "tiny-regionclip", *words, "workers=0"])
    assert fourth.exit_code == 0, fourth.output
    found = ovperception.load(boxes / "tiny-regionclip.safetensors")
    assert found.tasks == {"detect"}
    assert found.spec.digest == model.spec.digest
    scene = found.encode(np.zeros((64, 80, 3), np.uint8))
    assert 0 < len(scene.proposals()) <= 200
    assert scene.detect(["cat"], boxes=[[0, 0, 40, 40]], score_threshold=0).boxes.tolist() == [[0, 0, 40, 40]]
    # A head cannot borrow a backbone that it was not trained on.
    fifth = runner.invoke(app, ["train", "tiny-regionclip", *words, "workers=0", "borrow=tiny"])
    assert isinstance(fifth.exception, InvalidParameter)
    assert fifth.exception.field == "borrow"


def test_a_head_without_its_clip_says_what_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="tiny-clip"):
        RECIPES["tiny-fcclip"].run(with_overrides(tiny_fcclip(), {"backbone": str(tmp_path / "none")}))


def _both_towers_learned_and_early_stages_stayed(before: Path, after: Path) -> None:
    from safetensors.torch import load_file

    old, new = load_file(before), load_file(after)
    changed = {key for key, value in old.items() if not value.equal(new[key])}
    assert {"visual.layer4.0.conv1.weight", "token_embedding.weight"} <= changed
    assert not any(key.startswith("visual.conv") for key in changed)
    assert any(key.startswith("visual.layer1.") and "conv" in key for key in changed)


def test_unknown_recipes_list_the_known_ones() -> None:
    result = CliRunner().invoke(app, ["train", "nope"])
    assert result.exit_code != 0
    assert all(name in str(result.exception) + result.output for name in RECIPES)
