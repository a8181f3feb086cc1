"""Heads trained on files, from the recipe to a bundle that answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import ovperception
from heads.regionclip.pretraining_recipe import RECIPE
from ovperception.cli import app
from ovperception.datasets.scenes.export import ExportSettings, export_scenes
from ovperception.errors import InvalidParameter
from ovperception.training.gradients import GradientClip
from ovperception.training.paper_recipes import fcclip_coco, lseg_ade20k, regionclip_coco, regionclip_lvis


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures with a COCO-format file."""
    out = tmp_path_factory.mktemp("data") / "scenes"
    export_scenes(out, ExportSettings(images=2, size=(64, 64)))
    return out


SMALL = [
    "steps=1",
    "batch_size=2",
    "workers=0",
    "device=cpu",
    "augmentation.crop=64",
    "tensorboard=false",
]


def train(recipe: str, *words: str) -> None:
    done = CliRunner().invoke(app, ["train", recipe, *SMALL, *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output


def test_five_lines_adapt_a_model_to_your_own_data(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    lines = ['recipe = "my-data"', f'out = "{tmp_path / "mine"}"', "[data]"]
    lines += [f'annotations = "{folder / "instances.json"}"', f'images = "{folder / "images"}"']
    recipe.write_text("\n".join(lines))
    held_out = [f"held_out.annotations={folder / 'instances.json'}", f"held_out.images={folder / 'images'}"]
    train(str(recipe), "loss.points=32", "evaluation.every=1", *held_out)
    out = tmp_path / "mine"
    names = {p.name for p in out.iterdir()}
    assert {"recipe.toml", "environment.jsonl", "data.json", "log.jsonl", "last.pt", "best.pt"} <= names
    assert set(json.loads((out / "data.json").read_text())) >= {"vocabulary", "data", "backbone", "files"}
    model = ovperception.load(out / "mine.safetensors")
    taught = {c["name"] for c in json.loads((folder / "instances.json").read_text())["categories"]}
    config = model.card.heads[0].config
    assert taught <= set(config["seen_words"])
    assert model.tasks == {"detect", "semantic", "panoptic"}
    scene = model.encode(np.zeros((64, 80, 3), np.uint8))
    assert scene.semantic(["grass", "sky"]).labels.shape == (64, 80)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            "fcclip",
            ["settings.hidden_dim=32", "settings.mask_dim=32", "settings.queries=4", "loss.points=32"],
        ),
        ("regionclip", ["data.shapes=boxes", "data.part=", "loss.regions=8"]),
        (
            "lseg",
            [
                "settings.trunk.width=16",
                "settings.trunk.depth=4",
                "settings.trunk.heads=2",
                "settings.trunk.taps=[0,1,2,3]",
                "settings.features=8",
                "settings.reassemble_channels=[8,8,8,8]",
                "loss.pixels=64",
            ],
        ),
    ],
    ids=["fcclip", "regionclip", "lseg"],
)
def test_the_papers_recipes_run_on_miniature_data(
    folder: Path, tmp_path: Path, recipe: str, words: list[str]
) -> None:
    data = ["data.name=", "data.split=", f"data.annotations={folder / 'instances.json'}"]
    data += [f"data.images={folder / 'images'}", "model=tiny", f"out={tmp_path / recipe}"]
    train(recipe, *data, *words)
    assert ovperception.load(tmp_path / recipe / f"{recipe}.safetensors").card.heads[0].name == recipe


def test_the_last_stage_learns_with_the_head_and_is_a_backbone_of_its_own(
    folder: Path, tmp_path: Path
) -> None:
    data = ["data.name=", "data.split=", "data.part=", f"data.annotations={folder / 'instances.json'}"]
    data += [f"data.images={folder / 'images'}", "model=tiny", f"out={tmp_path / 'tuned'}", "log_every=1"]
    train("regionclip", *data, "loss.regions=8", "warmup=0")
    line = json.loads((tmp_path / "tuned" / "log.jsonl").read_text().splitlines()[0])
    assert line["class"] > 0
    tuned, tiny = ovperception.load(tmp_path / "tuned" / "tuned.safetensors"), ovperception.load("tiny")
    assert tuned.card.backbone.digest == tuned.spec.digest != tiny.spec.digest
    old = tiny.backbone.model.state_dict()
    moved = {name for name, v in tuned.backbone.model.state_dict().items() if not v.equal(old[name])}
    assert {name.split(".")[1] for name in moved} == {"layer4", "attnpool"}
    assert not any("bn" in name for name in moved)
    with pytest.raises(InvalidParameter, match="stages"):
        train("regionclip", *data, f"out={tmp_path / 'no'}", 'tune=["layer1"]')


def test_the_papers_numbers() -> None:
    """Worked from the published configurations, not from the recipes."""
    fcclip = fcclip_coco()
    assert 0 <= 50 * 118_287 / 16 - fcclip.schedule.steps < 1000  # 50 epochs
    for step, factor in ((0, 1), (327_777, 1), (327_778, 0.1), (355_092, 0.01)):
        assert fcclip.schedule.rate(step, 0) == pytest.approx(1e-4 * factor)
    coco, lvis = regionclip_coco(), regionclip_lvis()
    assert coco.schedule.rate(0, 0) == pytest.approx(2e-6)
    for step, factor in ((59_999, 1), (60_000, 0.1), (80_000, 0.01)):
        assert coco.schedule.rate(step, 0) == pytest.approx(0.002 * factor)
    assert (lvis.schedule.steps, lvis.loss["background_weight"], lvis.loss["focal_gamma"]) == (
        180_000,
        0.8,
        None,
    )
    for recipe in (fcclip, coco, lvis, RECIPE.settings()):
        assert recipe.optimizer.decay_but_norms  # WEIGHT_DECAY_NORM 0, biases as matrices
    assert (fcclip.optimizer.weight_decay, coco.optimizer.weight_decay) == (0.05, 1e-4)
    assert fcclip.loop.clip == GradientClip(kind="norm", limit=0.01)
    lseg = lseg_ade20k()
    epoch = lseg.schedule.steps // 240
    assert 0 <= epoch * 16 - 20_210 < 16
    assert lseg.schedule.rate(epoch - 1, 0) == pytest.approx(0.004)
    assert lseg.schedule.rate(120 * epoch, 0) == pytest.approx(0.004 * 0.5**0.9)


def test_settings_that_do_not_fit_the_models_head_say_so(folder: Path, tmp_path: Path) -> None:
    data = [f"data.annotations={folder / 'instances.json'}", f"data.images={folder / 'images'}"]
    with pytest.raises(InvalidParameter, match="other sizes") as caught:
        train("my-data", f"out={tmp_path / 'x'}", *data, "settings.queries=7")
    assert "fresh=true" in caught.value.message


def test_evaluation_needs_data_of_its_own(folder: Path, tmp_path: Path) -> None:
    data = [f"data.annotations={folder / 'instances.json'}", f"data.images={folder / 'images'}"]
    with pytest.raises(InvalidParameter, match="not trained on"):
        train("my-data", f"out={tmp_path / 'x'}", *data, "evaluation.every=1")


@pytest.mark.parametrize(
    ("word", "named"), [("loss.pointz=3", "'loss.points' was meant"), ("loss.points=many", "int")], ids=str
)
def test_a_loss_that_cannot_be_set_so_is_told(folder: Path, tmp_path: Path, word: str, named: str) -> None:
    data = [f"data.annotations={folder / 'instances.json'}", f"data.images={folder / 'images'}"]
    with pytest.raises(InvalidParameter) as caught:
        train("my-data", *data, f"out={tmp_path}", word)
    assert named in str(caught.value)


def test_a_model_that_borrows_its_backbone_has_one_of_its_own_once_it_is_tuned(
    folder: Path, tmp_path: Path
) -> None:
    lent = ovperception.load("tiny-regionclip")
    assert lent.card.backbone.lender == "tiny"
    data = ["data.name=", "data.split=", "data.part=", f"data.annotations={folder / 'instances.json'}"]
    data += [f"data.images={folder / 'images'}", "model=tiny-regionclip", f"out={tmp_path / 'tuned'}"]
    train("regionclip", *data, "fresh=true", "loss.regions=8", "warmup=0", 'tune=["layer4"]')
    tuned = ovperception.load(tmp_path / "tuned" / "tuned.safetensors")
    assert not tuned.card.backbone.lender
    assert tuned.card.backbone.digest == tuned.spec.digest != lent.spec.digest
