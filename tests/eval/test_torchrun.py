"""Processes that torchrun started share the images, and the first one tells the same numbers as one alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eval.outcome_files import read_outcome
from eval.running.asking import LocalAsker
from eval.running.journal import read_records
from eval.running.run import run, torchrun_share
from eval.running.share import Share
from tests.eval.running_jobs import drawn, job, numbers, settled

NAME = "scenes_panoptic"


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, world: int = 2) -> None:
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", world)):
        monkeypatch.setenv(name, str(value))


def test_two_processes(tmp_path: Path, fake_model: type, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, shared = job(NAME, tmp_path / "alone"), job(NAME, tmp_path / "shared")
    run([alone], asker=LocalAsker(fake_model(drawn(3)), alone))
    models = [fake_model(drawn(3)) for _ in range(2)]
    as_process(monkeypatch, 1)
    assert run([shared], asker=LocalAsker(models[1], shared)) == []
    assert not (shared.out / "metrics.json").exists()
    as_process(monkeypatch, 0)
    (outcome,) = run([shared], asker=LocalAsker(models[0], shared))
    assert [model.encoded for model in models] == [2, 1]
    assert sorted(record["i"] for _, record in read_records(shared.out / "run")) == [0, 1, 2]
    assert numbers(shared.out) == numbers(alone.out)
    assert settled(shared.out) == settled(alone.out)
    assert read_outcome(shared.out).metrics == outcome.metrics


def test_share_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert torchrun_share() is None
    as_process(monkeypatch, 3, 5)
    assert torchrun_share() == Share(3, 5)


@pytest.mark.slow
def test_torchrun_itself(tmp_path: Path) -> None:
    command = ["ovperception", "eval", "--model", "tiny", "--protocol", "scenes_semantic"]
    command += ["--images", "3", "--size", "96"]
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    for out, start in (("alone", []), ("shared", launcher)):
        arguments = [sys.executable, "-m", *start, *command, "--out", str(tmp_path / out)]
        subprocess.run(arguments, check=True, capture_output=True, timeout=600)
    assert numbers(tmp_path / "shared") == numbers(tmp_path / "alone")
    assert len(list((tmp_path / "shared" / "run").glob("records-*.jsonl"))) == 2
