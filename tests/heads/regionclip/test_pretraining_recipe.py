"""`ovp train regionclip-pretrain` on miniature tars: learns, is taken up bit by bit, ends in a bundle."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ovperception
from heads.regionclip.pretraining_recipe import RegionPretraining, _drawn
from ovperception.cli import app
from ovperception.errors import InvalidParameter, Unsupported
from ovperception.training.recipes import known_recipes
from tests.heads.regionclip.small import CONFIG, picture, small_backbone, write_small_bundle


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP, two shards of six captioned pictures, and a list of concepts."""
    folder = tmp_path_factory.mktemp("pretraining")
    write_small_bundle(folder / "clip.safetensors")
    (folder / "concepts.txt").write_text("cat\ndog\ntaxi|cab\n")
    for shard in range(2):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for n in range(6):
                encoded = cv2.imencode(".jpg", picture(10 * shard + n, (70, 80)))[1].tobytes()
                for name, content in ((f"{n}.jpg", encoded), (f"{n}.txt", f"a photo of {n} cats".encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


def train(home: Path, out: Path, *words: str) -> dict[str, Any]:
    settings = [f"model={home / 'clip.safetensors'}", f"shards={home}", f"concepts={home / 'concepts.txt'}"]
    settings += ["batch_size=4", "regions=3", "block=4", "workers=0", "device=cpu", "log_every=1"]
    settings += ["augmentation.resize=none", "augmentation.crop=64", "tensorboard=false", "warmup=0"]
    done = CliRunner().invoke(app, ["train", "regionclip-pretrain", f"out={out}", *settings, *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    state: dict[str, Any] = torch.load(out / "last.pt", weights_only=True)
    return state


def test_it_learns_from_tars_and_is_taken_up_where_it_was(home: Path, tmp_path: Path) -> None:
    whole = train(home, tmp_path / "whole", "steps=4", "shape=constant")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert {"distillation", "concept", "caption"} <= lines[0].keys()
    assert (whole["step"], whole["places"][0]["batches"]) == (4, 4)
    before = {k.removeprefix("visual."): v for k, v in small_backbone().model.state_dict().items()}
    moved = {name for name, value in whole["module"].items() if not value.equal(before[name])}
    assert any(name.startswith("attnpool") for name in moved)
    assert {name.split(".")[0] for name in moved} == {"layer2", "layer3", "layer4", "attnpool"}
    assert not any("bn" in name for name in moved)

    part = train(home, tmp_path / "part", "steps=2", "shape=constant")
    assert part["places"][0]["batches"] == 2
    part = train(home, tmp_path / "part", "steps=4", "shape=constant")
    assert all(value.equal(part["module"][name]) for name, value in whole["module"].items())
    assert part["places"] == whole["places"]


def test_its_bundle_names_regions_on_a_backbone_of_its_own(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "aligned"
    train(home, out, "steps=1", f"proposer={_proposing(tmp_path)}")
    model = ovperception.load(out / "aligned.safetensors")
    assert model.card.backbone.digest == model.spec.digest != small_backbone().spec.digest
    found = model.encode(picture()).detect(["cat"], boxes=[[0, 0, 40, 40]], score_threshold=0)
    assert found.boxes.tolist() == [[0, 0, 40, 40]]


def _proposing(folder: Path) -> Path:
    return write_small_bundle(folder / "proposing.safetensors", {"proposer": {"kind": "clip-rpn"}})


def _vision_transformer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sizes = {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16}
    monkeypatch.setitem(CONFIG, "vision_cfg", sizes)
    return write_small_bundle(folder / "vit.safetensors", {"masks": False})


def test_what_cannot_be_trained_so_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidParameter, match="proposes") as caught:
        train(home, tmp_path / "a", "steps=1", f"proposer={home / 'clip.safetensors'}")
    assert caught.value.field == "proposer"
    with pytest.raises(Unsupported, match="single regions"):
        train(home, tmp_path / "b", f"model={_vision_transformer(tmp_path, monkeypatch)}", "steps=1")
    with pytest.raises(InvalidParameter, match="regions"):
        RegionPretraining(regions=0)


def test_the_published_numbers_and_random_regions() -> None:
    recipe = known_recipes()["regionclip-pretrain"].settings()
    assert recipe.schedule.rate(0, 0) == pytest.approx(2e-6)
    for step, factor in ((299_999, 1), (300_000, 0.1), (525_000, 0.01)):
        assert recipe.schedule.rate(step, 0) == pytest.approx(0.002 * factor)
    assert (recipe.batch_size, recipe.regions) == (96, 100)
    for boxes in _drawn(torch.zeros(2, 3, 40, 80), 50):
        sides = np.asarray(boxes[:, 2:] - boxes[:, :2])
        assert boxes.min() >= 0
        assert (boxes[:, 2:] <= torch.tensor([80.0, 40.0]) + 1e-4).all()
        assert (sides >= [10 - 1e-4, 5 - 1e-4]).all()
