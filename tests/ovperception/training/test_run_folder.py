"""One run a folder at a time, and what is told where it goes on with something else."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import pytest

from ovperception.errors import Conflict, ResourceExhausted
from ovperception.training.changed_recipe import changed_facts, changed_settings
from ovperception.training.checkpoint import write_whole
from ovperception.training.folder_lock import locked
from ovperception.training.recipes import tiny_clip, with_overrides
from ovperception.training.run_folder import describe_data, sitting


def _hold(folder: Path, ready: Connection) -> None:
    with locked(folder):
        ready.send(os.getpid())
        signal.pause()


def test_a_folder_is_one_runs_alone_until_that_ends_however_it_ends(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path, there))
    other.start()
    number = here.recv()
    with pytest.raises(Conflict, match=rf"process {number}.*out=FOLDER"), locked(tmp_path):
        pass
    other.kill()
    other.join()
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_changed_settings_are_told_when_a_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = with_overrides(tiny_clip(), {"out": str(tmp_path / "run"), "steps": "5"})
    with sitting(recipe):
        describe_data(recipe, {"vocabulary": "one"})
    assert capsys.readouterr().err == ""
    longer = with_overrides(recipe, {"steps": "7", "shape": "constant"})
    with sitting(longer):
        pass
    assert capsys.readouterr().err == ""  # nothing was trained yet
    (recipe.out / "last.pt").touch()
    with sitting(recipe):
        describe_data(recipe, {"vocabulary": "two"})
    told = " ".join(capsys.readouterr().err.split())
    assert 'schedule.shape: "constant" -> ' in told
    assert "schedule.steps: 7 -> 5" in told
    assert "goes on with other data: vocabulary" in told
    lines = [json.loads(line) for line in (recipe.out / "environment.jsonl").read_text().splitlines()]
    assert "changed" not in lines[0]
    assert lines[2]["changed"]["schedule.steps"] == "7 -> 5"


def test_a_folder_that_cannot_be_written_to_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    recipe = with_overrides(tiny_clip(), {"out": str(tmp_path / "file" / "run")})
    with pytest.raises(ResourceExhausted, match="another out=FOLDER"), sitting(recipe):
        pass


def test_what_torch_says_of_a_full_disk_comes_with_what_is_free(tmp_path: Path) -> None:
    def write(file: IO[bytes]) -> None:
        raise RuntimeError("unexpected pos 64 vs 0\nand a trace")

    with pytest.raises(
        ResourceExhausted, match=r"Got a disk with [\d.]+ MB free, and unexpected pos 64 vs 0\."
    ):
        write_whole(tmp_path / "last.pt", write)
    assert [*tmp_path.iterdir()] == []


def test_differences_of_files_that_nobody_can_read_are_none() -> None:
    assert changed_settings("no = toml = at all", "steps = 1") == {}
    assert changed_settings("steps = 1", "[schedule]\nsteps = 1") == {
        "schedule.steps": "nothing -> 1",
        "steps": "1 -> nothing",
    }
    assert changed_facts("[]", {"data": "1"}) == []
    assert changed_facts('{"files": {"a": "1"}, "gone": 1}', {"files": {"a": "2"}}) == ["files.a"]
