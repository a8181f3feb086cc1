"""`torchrun ... -m ovperception train`, as the help has it: two processes of the command itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ovperception.bundle import read_bundle
from ovperception.datasets.scenes.export import ExportSettings, export_scenes


def test_the_command_runs_in_two_processes_and_one_of_them_speaks(tmp_path: Path) -> None:
    export_scenes(tmp_path / "scenes", ExportSettings(images=4, size=(64, 64)))
    files = ["data.annotations=scenes/instances.json", "data.images=scenes/images"]
    small = [
        "steps=2",
        "batch_size=4",
        "workers=0",
        "augmentation.crop=64",
        "loss.points=32",
        "shape=constant",
    ]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [*launcher, "-m", "ovperception", "train", "my-data", "--threads", "1", "out=run", *small, *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = ended.stderr
    assert told.count("wrote run/") == 1
    assert told.count("2/2") == 1
    assert "Warning" not in told
    (bundle,) = (tmp_path / "run").glob("*.safetensors")
    assert f"wrote run/{bundle.name}" in told
    assert read_bundle(bundle).card.heads
