"""Two processes train as one does, decide together, and only one of them writes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ovperception.errors import InvalidDataset, InvalidParameter
from ovperception.training.distributed import World
from ovperception.training.gradients import GradientClip
from ovperception.training.loop import TrainingRun
from ovperception.training.loop_settings import EvaluationSettings, LoopSettings
from ovperception.training.schedule import Schedule
from ovperception.training.stopping import RunStopped
from tests.ovperception.training.two_processes import in_two

# The children fork without exec: importing torch anew would take longer than the tests.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Batches:
    def __init__(self, spoilt: tuple[int, ...] = ()) -> None:
        self.spoilt = spoilt

    def __getitem__(self, number: int) -> Tensor:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
        return x * float("nan") if number in self.spoilt else x


def train(
    folder: Path,
    world: World,
    spoilt: tuple[int, ...] = (),
    source: Batches | None = None,
    **settings: Any,
) -> TrainingRun:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Linear(1, 1))
    options = {"tensorboard": False, "log_every": 2, "save_every": 2, "clip": GradientClip(limit=0.1)}
    run = TrainingRun(
        folder=folder,
        module=module,
        optimizer=torch.optim.AdamW(module.parameters(), lr=0.1),
        schedule=Schedule(steps=6, learning_rate=0.05, warmup=1),
        settings=LoopSettings(**(options | settings)),
        world=world,
        evaluate=lambda m, step: {"loss": float(step + world.rank)},
    )

    def losses(batch: Tensor) -> dict[str, Tensor]:
        seen = module[:3](batch)  # the last layer learns nothing: a loss need not reach everything
        return {"fit": (seen - batch.sum(1, keepdim=True)).square().mean()}

    run.resume()
    run.run(source or Batches(spoilt), losses)
    return run


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "last.pt", weights_only=True)
    return found


def test_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    plan = EvaluationSettings(every=3)
    single = train(tmp_path / "one", World(), accumulate=2, evaluation=plan)

    def work(world: World, folder: Path) -> None:
        run = train(folder, world, evaluation=plan)
        assert run.world.size == 2
        gathered = world.gathered([p.detach() for p in run.module.parameters()])
        assert all(a.equal(b) for a, b in zip(*gathered, strict=True))
        assert (run.best.value, run.best.step) == (3.0, 3)  # what the writer found counts

    assert in_two(work, tmp_path / "two") == [0, 0]
    for key, value in single.module.state_dict().items():
        torch.testing.assert_close(state(tmp_path / "two")["module"][key], value, rtol=1e-5, atol=1e-6)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    one, two = ([json.loads(line) for line in log if "fit" in log[0]] for log in logs)
    assert [line["step"] for line in two] == [line["step"] for line in one]  # each line once: one writer
    assert [line.get("fit") for line in two] == pytest.approx([line.get("fit") for line in one], abs=2e-5)


def test_two_processes_are_taken_up_bit_by_bit(tmp_path: Path) -> None:
    assert in_two(lambda world, folder: train(folder, world) and None, tmp_path / "whole") == [0, 0]

    def stopped(world: World, folder: Path) -> None:
        save = TrainingRun._save_and_evaluate

        def signalled(run: TrainingRun) -> None:
            save(run)
            if run.step == 3 and world.rank == 1:  # one is asked, both stop
                os.kill(os.getpid(), signal.SIGTERM)

        TrainingRun._save_and_evaluate = signalled  # type: ignore[method-assign]
        with pytest.raises(RunStopped):
            train(folder, world)

    assert in_two(stopped, tmp_path / "part") == [0, 0]
    assert state(tmp_path / "part")["step"] == 4
    assert in_two(lambda world, folder: train(folder, world) and None, tmp_path / "part") == [0, 0]
    whole, part = state(tmp_path / "whole"), state(tmp_path / "part")
    assert part["step"] == 6
    assert all(value.equal(part["module"][key]) for key, value in whole["module"].items())


def test_what_one_process_cannot_use_both_leave_out(tmp_path: Path) -> None:
    def work(world: World, folder: Path) -> None:
        run = train(folder, world, spoilt=(5,))  # step 2 of process 1
        assert run.skipped == 1
        assert all(p.isfinite().all() for p in run.module.parameters())

    assert in_two(work, tmp_path) == [0, 0]
    reports = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    assert [(r["step"], r["images"]) for r in reports] == [(2, ["batch 5"])]


def test_where_the_data_of_one_goes_wrong_both_end_with_what_they_learned(tmp_path: Path) -> None:
    class Wrong(Batches):
        def __getitem__(self, number: int) -> Tensor:
            if number == 7:  # step 3 of process 1
                raise InvalidDataset("pictures/7.jpg is gone", field="data")
            return super().__getitem__(number)

    def work(world: World, folder: Path) -> None:
        with pytest.raises(InvalidDataset, match="gone" if world.rank else "another process"):
            train(folder, world, source=Wrong(), save_every=100)

    assert in_two(work, tmp_path) == [0, 0]
    assert state(tmp_path)["step"] == 3


def test_an_error_of_the_writer_is_everybodys(tmp_path: Path) -> None:
    def work(world: World, folder: Path) -> None:
        def fail() -> None:
            raise InvalidParameter("No room", field="out")

        with pytest.raises(InvalidParameter, match="No room"):
            world.told_by_writer(fail)

    assert in_two(work, tmp_path) == [0, 0]


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    assert World(size=2).share_of(16, 4) == 2
    with pytest.raises(InvalidParameter, match="2 processes x 3"):
        World(size=2).share_of(16, 3)
