"""Numbers reach Weights & Biases as its documentation says they are sent.

The package is no dependency and an account is needed: its calls are recorded by a stand-in with the
signatures of wandb 0.31 (`wandb.init`, `Run.log`, `Run.finish`), so that a call it would refuse fails here.
Where the package is installed, a run in its offline mode is written as well.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ovperception.errors import MissingDependency
from ovperception.training import tracking
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.tracking import trackers


class Recorded(ModuleType):
    """Takes the arguments that wandb takes, of the types that it takes."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple[str, Any]] = []

    def init(
        self,
        *,
        project: str,
        name: str,
        dir: str,  # noqa: A002
        id: str,  # noqa: A002
        resume: str,
        config: dict[str, Any],
    ) -> Recorded:
        assert resume in ("allow", "must", "never", "auto")
        told = {"project": project, "name": name, "dir": dir, "id": id, "config": config}
        self.calls.append(("init", told))
        return self

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        assert type(data) is dict  # it refuses other mappings
        self.calls.append(("log", (data, step)))

    def finish(self) -> None:
        self.calls.append(("finish", None))


def found(monkeypatch: pytest.MonkeyPatch, there: bool) -> Recorded:
    module = Recorded()
    monkeypatch.setitem(sys.modules, "wandb", module)
    find = importlib.util.find_spec

    def spec(name: str, *rest: Any) -> Any:
        return (object() if there else None) if name == "wandb" else find(name, *rest)

    monkeypatch.setattr(tracking.importlib.util, "find_spec", spec)
    return module


def log(folder: Path, numbers: Mapping[str, float], step: int) -> None:
    chosen = trackers(LoopSettings(wandb="robots", tensorboard=False), folder)
    for tracker in chosen:
        tracker.rewind(step - 1)
        tracker.log(step, 1.0, numbers)
        tracker.close()


def test_a_run_and_its_numbers_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = found(monkeypatch, True)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "recipe.toml").write_text('recipe = "my-data"\n[schedule]\nsteps = 40\n')
    log(folder, {"loss": 0.5, "evaluation/AP50": 30}, 20)
    (begun, sent, ended) = wandb.calls
    assert begun[1]["project"] == "robots"
    assert (begun[1]["name"], begun[1]["dir"]) == ("mine", str(folder))
    assert begun[1]["config"] == {"recipe": "my-data", "schedule": {"steps": 40}}
    assert sent == ("log", ({"loss": 0.5, "evaluation/AP50": 30.0}, 20))
    assert ended == ("finish", None)
    assert (folder / "log.jsonl").read_text().count("\n") == 1


def test_a_resumed_run_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its id; another folder of the same name is another run."""
    wandb = found(monkeypatch, True)
    for folder in (tmp_path / "a" / "mine", tmp_path / "b" / "mine"):
        folder.mkdir(parents=True)
        for step in (20, 40):
            log(folder, {"loss": 0.5}, step)
    ids = [value["id"] for call, value in wandb.calls if call == "init"]
    assert ids[0] == ids[1]
    assert ids[2] == ids[3] != ids[0]


def test_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, False)
    with pytest.raises(MissingDependency, match=r"ovperception\[wandb\]"):
        trackers(LoopSettings(wandb="robots"), tmp_path)


@pytest.mark.filterwarnings("default")  # those of the library
def test_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "mine"
    folder.mkdir()
    log(folder, {"loss": 0.5}, 20)
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
