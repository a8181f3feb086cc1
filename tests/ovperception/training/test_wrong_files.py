"""Files of your own with every fault in them: `ovp train` tells each with its path, counts it, goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import ovperception
from ovperception.cli import app
from ovperception.datasets.scenes.export import ExportSettings, export_scenes
from ovperception.errors import InvalidDataset

PICTURES = 8


def name(number: int) -> str:
    return f"{number:012d}.jpg"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "scenes"
    export_scenes(out, ExportSettings(images=PICTURES, size=(64, 64)))
    return out


def spoil(folder: Path) -> None:
    """Only picture 8 is without a fault."""
    path = folder / "instances.json"
    data = json.loads(path.read_text())
    images = {row["id"]: row for row in data["images"]}
    broken = folder / "images" / name(1)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    (folder / "images" / name(2)).unlink()
    data["annotations"] = [row for row in data["annotations"] if row["image_id"] != 3]
    images[4]["width"] = 80

    def of(number: int) -> list[dict[str, Any]]:
        return [row for row in data["annotations"] if row["image_id"] == number]

    of(5)[0]["bbox"] = [500, 500, 10, 10]
    of(5)[1]["bbox"] = [-20, -20, 60, 60]
    of(6)[0]["segmentation"] = {"size": [2, 2], "counts": [0, 4]}
    of(7)[0]["category_id"] = 9999
    path.write_text(json.dumps(data))


def train(folder: Path, out: Path, *words: str) -> Result:
    settings = ["steps=1", f"batch_size={PICTURES}", "workers=0", "augmentation.crop=64", "loss.points=32"]
    files = [f"data.annotations={folder / 'instances.json'}", f"data.images={folder / 'images'}"]
    return CliRunner().invoke(
        app, ["train", "my-data", f"out={out}", "tensorboard=false", *settings, *files, *words]
    )


def test_every_fault_is_told_with_its_path_and_counted(folder: Path, tmp_path: Path) -> None:
    spoil(folder)
    words = tmp_path / "words.txt"
    taught = json.loads((folder / "instances.json").read_text())["categories"]
    words.write_text("".join(f"{c['name']}\n" for c in taught[1:]) + "flux capacitor\n")
    out = tmp_path / "run"
    done = train(folder, out, f"data.vocabulary={words}")
    assert done.exit_code == 0, done.output
    told = json.loads((out / "wrong_data.json").read_text())
    counts = {kind: fact["count"] for kind, fact in told.items()}
    where = {kind: " ".join(fact["first"]) for kind, fact in told.items()}
    for kind, place in (
        ("a picture that cannot be decoded", name(1)),
        ("a missing file", name(2)),
        ("a picture with nothing to learn", name(3)),
        ("a picture that does not fit its annotations", name(4)),
        ("a box without pixels in its picture", name(5)),
        ("a mask that cannot be read", name(6)),
        ("a class of the data that is not in the vocabulary", taught[0]["name"]),
        ("a word of the vocabulary that is no class of the data", "flux capacitor"),
    ):
        assert place in where[kind], kind
        assert counts[kind] == 1, kind
        assert kind in done.stderr
    assert any("categor" in kind for kind in counts)  # 9999, told when the file is opened
    assert ovperception.load(out / "run.safetensors").tasks


def test_a_recipe_may_stop_at_the_first_fault(folder: Path, tmp_path: Path) -> None:
    (folder / "images" / name(2)).unlink()
    out = tmp_path / "run"
    done = train(folder, out, "wrong_data.policy=stop")
    assert isinstance(done.exception, InvalidDataset)
    assert name(2) in str(done.exception)
    assert (out / "last.pt").is_file()
    assert json.loads((out / "wrong_data.json").read_text())["a missing file"]["count"] == 1
    spoil_class(folder)
    done = train(folder, tmp_path / "other", "wrong_data.policy=stop")
    assert isinstance(done.exception, InvalidDataset)
    assert "9999" in str(done.exception)


def spoil_class(folder: Path) -> None:
    path = folder / "instances.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["category_id"] = 9999
    path.write_text(json.dumps(data))


def test_a_file_without_annotations_says_so(folder: Path, tmp_path: Path) -> None:
    path = folder / "instances.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    done = train(folder, tmp_path / "run")
    assert isinstance(done.exception, InvalidDataset)
    assert "nothing to learn" in str(done.exception)
    assert str(folder / "images") in str(done.exception)
