"""The built-in model: killed, in two processes, and behind a server, it gives the same numbers."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ovperception
from eval.outcome_files import read_outcome
from eval.running.asking import LocalAsker
from eval.running.run import run
from ovperception.model import Model
from serving import Server, ServerConfig
from tests.eval.running_jobs import job, numbers, settled

KINDS = ["scenes_lvis_mask", "scenes_panoptic", "scenes_semantic"]


@pytest.fixture(scope="module")
def model() -> Model:
    return ovperception.load("tiny")


@pytest.fixture(scope="module")
def whole(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three, in one process without a stop."""
    out = tmp_path_factory.mktemp("whole")
    jobs = [job(name, out / name, model="tiny", limit=4) for name in KINDS]
    run(jobs, asker=LocalAsker(model, jobs[0]))
    return out


@pytest.fixture(scope="module")
def address(model: Model) -> Iterator[str]:
    with Server([model], ServerConfig(port=0)) as server:
        yield server.address


def test_behind_a_server(whole: Path, address: str, tmp_path: Path) -> None:
    jobs = [job(name, tmp_path / name, model="tiny", limit=4, server=address) for name in KINDS]
    outcomes = run(jobs)
    for name, outcome in zip(KINDS, outcomes, strict=True):
        assert numbers(tmp_path / name) == numbers(whole / name)
        assert settled(tmp_path / name) == settled(whole / name)
        assert outcome.facts.server == address
        assert outcome.facts.model_digest == read_outcome(whole / name).facts.model_digest
    results = "predictions/results.json"
    assert (tmp_path / KINDS[0] / results).read_bytes() == (whole / KINDS[0] / results).read_bytes()


def test_judging_is_a_small_part_of_the_time(whole: Path) -> None:
    for name in KINDS:
        facts = read_outcome(whole / name).facts
        assert 0 < facts.evaluation_seconds < facts.inference_seconds


@pytest.mark.slow  # four processes load the model
def test_killed_then_in_two_processes(whole: Path, tmp_path: Path) -> None:
    """``kill -9`` after the first records, then the same command with two workers."""
    out = tmp_path / KINDS[1]
    command = [
        *(sys.executable, "-m", "ovperception", "eval", "--model", "tiny", "--protocol", KINDS[1]),
        *("--limit", "4", "--size", "96", "--json", "--out", str(out)),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        ends = time.monotonic() + 240
        while not any((out / "run").glob("records-*")) and process.poll() is None:
            assert time.monotonic() < ends
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "metrics.json").exists()
    subprocess.run([*command, "--workers", "2"], check=True, stdout=subprocess.DEVNULL)
    assert numbers(out) == numbers(whole / KINDS[1])
    assert settled(out) == settled(whole / KINDS[1])
    assert read_outcome(out).facts.resumed == 1
