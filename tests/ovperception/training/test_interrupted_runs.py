"""A real head's run that is killed, or meets a full disk: the same command ends with the same weights."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from ovperception.cli import app
from ovperception.datasets.scenes.export import ExportSettings, export_scenes
from ovperception.errors import ResourceExhausted
from tests.ovperception.training.test_loop import full_disk

STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "scenes"
    export_scenes(out, ExportSettings(images=3, size=(64, 64)))
    return out


def train(folder: Path, out: Path, steps: int = STEPS) -> Result:
    words = [
        f"out={out}",
        f"steps={steps}",
        "batch_size=2",
        "workers=0",
        "augmentation.crop=64",
        "save_every=1",
    ]
    words += ["loss.points=32", "tensorboard=false", "shape=constant", "loop.deterministic=true", "ema=0.9"]
    files = [f"data.annotations={folder / 'instances.json'}", f"data.images={folder / 'images'}"]
    return CliRunner().invoke(app, ["train", "my-data", *words, *files])


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state of a run that was left alone."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train(folder, out).exit_code == 0
    return state(out)


def state(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(out / "last.pt", weights_only=True)
    return found


def assert_ends_as(whole: dict[str, Any], out: Path) -> None:
    found = state(out)
    assert found["step"] == STEPS
    assert all(value.equal(found["module"][name]) for name, value in whole["module"].items())
    average, theirs = found["average"]["weights"], whole["average"]["weights"]
    assert all(value.equal(average[name]) for name, value in theirs.items())
    assert (out / f"{out.name}.safetensors").is_file()


# The child forks without exec: importing torch anew would take longer than the test.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_run_is_taken_up_by_the_same_command(
    folder: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = multiprocessing.get_context("fork").Process(target=train, args=(folder, out))
    process.start()
    while not (out / "last.pt").is_file():
        assert process.is_alive(), "it ended before it was killed"
        time.sleep(0.005)
    process.kill()
    process.join()
    assert train(folder, out).exit_code == 0
    assert_ends_as(whole, out)


def test_a_full_disk_takes_nothing_of_what_was_saved(
    folder: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert train(folder, out, steps=2).exit_code == 0
    with full_disk(1_000_000):
        done = train(folder, out)
    assert isinstance(done.exception, ResourceExhausted)
    assert str(out / "last.pt") in str(done.exception)
    assert "not saved" in done.stderr
    assert state(out)["step"] == 2
    assert not [path for path in out.iterdir() if "partial" in path.name]
    assert train(folder, out).exit_code == 0
    assert_ends_as(whole, out)
