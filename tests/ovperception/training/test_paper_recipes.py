"""The papers' recipes by `ovp train`, some steps each, on miniatures of their own data sets' layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import ovperception
from ovperception.cli import app
from ovperception.datasets.scenes.export import ExportSettings, export_scenes
from ovperception.datasets.vocabularies import load_vocabulary_file
from tests.ovperception.datasets.layouts import (
    annotation,
    columns,
    image,
    label_map,
    lines,
    picture,
    write_json,
)
from tests.ovperception.training.test_base_classes import coco

STEPS = 3
COMMON = [
    "model=tiny",
    f"steps={STEPS}",
    "warmup=0",
    "batch_size=2",
    "workers=0",
    "device=cpu",
    "log_every=1",
    "tensorboard=false",
    "bfloat16=false",
    "augmentation.crop=64",
]
FCCLIP = ["settings.hidden_dim=32", "settings.mask_dim=32", "settings.queries=4", "loss.points=32"]
REGIONCLIP = ["augmentation.resize.edges=64", "loss.regions=8"]
LSEG = [
    "augmentation.resize.size=64",
    "settings.trunk.width=16",
    "settings.trunk.depth=4",
    "settings.trunk.heads=2",
    "settings.trunk.taps=[0,1,2,3]",
    "settings.features=8",
    "settings.reassemble_channels=[8,8,8,8]",
    "loss.pixels=64",
]


def panoptic(root: Path) -> list[str]:
    """Scenes with a COCO panoptic file."""
    export_scenes(root / "scenes", ExportSettings(images=2, size=(64, 64)))
    files = {"annotations": "panoptic.json", "maps": "panoptic", "images": "images"}
    named = [f"data.{key}={root / 'scenes' / name}" for key, name in files.items()]
    return ["data.name=", "data.split=", "augmentation.resize.size=64", *named, *FCCLIP]


def ov_coco(root: Path) -> list[str]:
    return [f"data.root={coco(root)}", *REGIONCLIP]


def lvis(root: Path) -> list[str]:
    """Two pictures with a common class, one of which has a rare one as well."""
    entries = load_vocabulary_file("lvis_v1_1203").classes
    rare, common = (next(e for e in entries if e.frequency == f) for f in "rc")
    for number in (1, 2):
        picture(root / "train2017" / f"{number}.jpg")
    address = "http://images.cocodataset.org/train2017/{}.jpg"
    data = {
        "images": [image(n, f"{n}.jpg") | {"coco_url": address.format(n)} for n in (1, 2)],
        "annotations": [
            annotation(n, of, e.id) for n, of, e in ((1, 1, rare), (2, 1, common), (3, 2, common))
        ],
        "categories": [
            {"id": e.id, "name": e.name, "synonyms": [e.name], "frequency": e.frequency} for e in entries
        ],
    }
    write_json(root / "annotations" / "lvis_v1_train.json", data)
    return [f"data.root={root}", *REGIONCLIP]


def ade20k(root: Path) -> list[str]:
    for name in ("a", "b"):
        picture(root / "images" / "training" / f"{name}.jpg")
        label_map(root / "annotations" / "training" / f"{name}.png", columns(0, 1, 13, 13, 3))
    return [f"data.root={root}", *LSEG]


def pascal(root: Path) -> list[str]:
    """A bus in either, which is of another fold than the one left out."""
    home = root / "VOC2012"
    for name in ("a", "b"):
        picture(home / "JPEGImages" / f"{name}.jpg")
        label_map(home / "SegmentationClassAug" / f"{name}.png", columns(0, 1, 6, 255))
    lines(home / "ImageSets" / "Segmentation" / "trainaug.txt", "a", "b")
    return [f"data.root={root}", *LSEG]


@pytest.mark.parametrize(
    ("recipe", "make", "losses"),
    [
        ("fcclip", panoptic, {"class", "mask", "dice"}),
        ("regionclip", ov_coco, {"class"}),
        pytest.param("regionclip-lvis", lvis, {"class"}, marks=pytest.mark.slow),
        pytest.param("lseg", ade20k, set(), marks=pytest.mark.slow),
        ("lseg-pascal5i", pascal, set()),
    ],
    ids=["fcclip", "regionclip", "regionclip-lvis", "lseg", "lseg-pascal5i"],
)
def test_some_steps_of_a_recipe_end_in_a_model_that_loads(
    recipe: str, make: Callable[[Path], list[str]], losses: set[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = [*COMMON, *make(tmp_path), f"out={out}"]
    done = CliRunner().invoke(app, ["train", recipe, *words])
    assert done.exit_code == 0, done.exception or done.output
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(1, STEPS + 1))
    assert losses <= log[0].keys()
    assert all(line["loss"] > 0 for line in log)
    assert ovperception.load(out / "run.safetensors").tasks


def test_a_head_learns_in_float16_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [*COMMON, *panoptic(tmp_path), f"out={out}", "float16=true", "steps=6"]
    done = CliRunner().invoke(app, ["train", "fcclip", *words])
    assert done.exit_code == 0, done.exception or done.output
    state = torch.load(out / "last.pt", weights_only=True)
    assert state["skipped"] == 0
    assert all(value.isfinite().all() for value in state["module"].values() if value.is_floating_point())
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert log[-1]["gradient_norm"] > 0
    assert state["loss_scale"]["scale"] > 1
