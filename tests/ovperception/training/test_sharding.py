"""Two processes with a share each of the weights train as one process with the whole, and save as it does."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.distributed.fsdp  # both once here, not in every child
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ovperception.errors import InvalidCheckpoint, Unsupported
from ovperception.training.distributed import World
from ovperception.training.gradients import ClipKind, GradientClip
from ovperception.training.loop import TrainingRun
from ovperception.training.loop_settings import EvaluationSettings, LoopSettings
from ovperception.training.parameters import OptimizerSettings, make_optimizer
from ovperception.training.schedule import Schedule
from ovperception.training.sharding import Shards
from ovperception.training.stopping import RunStopped
from tests.ovperception.training.two_processes import in_two

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Head(nn.Module):
    """Blocks in a list, a part that few batches reach, and one that none does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(2))
        self.last = nn.Linear(5, 1)
        self.rare = nn.Linear(3, 1)
        self.idle = nn.Linear(1, 1)
        self.scale = nn.Parameter(torch.tensor(0.1))

    def losses(self, batch: Tensor) -> Mapping[str, Tensor]:
        x = self.first(batch)
        for block in self.blocks:
            x = block(x)
        found = {"fit": (self.scale.exp() * self.last(x) - batch.sum(1, keepdim=True)).square().mean()}
        if batch[0, 0] > 0:
            found["rare"] = 0.1 * self.rare(batch).square().mean()
        return found


class Batches:
    """Every second batch has what the rare part learns from: of two processes, one."""

    def __getitem__(self, number: int) -> Tensor:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
        x[0, 0] = x[0, 0].abs() if number % 2 else -x[0, 0].abs()
        return x * float("nan") if number == 9 else x


def train(folder: Path, world: World, *, steps: int = 6, block: int = 1, **settings: Any) -> TrainingRun:
    torch.manual_seed(0)
    head = Head()
    sharded = world.size > 1
    options = {"tensorboard": False, "save_every": 2, "ema": 0.9, "sharded": sharded}
    shards = Shards(head, world, block=block) if sharded else None
    run = TrainingRun(
        folder=folder,
        module=head,
        optimizer=make_optimizer(head, OptimizerSettings(), 0.05),
        schedule=Schedule(steps=steps, learning_rate=0.05, warmup=1),
        settings=LoopSettings(**(options | settings)),
        world=world,
        shards=shards,
        evaluate=lambda m, step: {"loss": float(sum(m.losses(Batches()[100]).values()))},
    )
    run.resume()
    run.run(Batches(), head.losses)
    return run


def state(folder: Path, name: str = "last.pt") -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / name, weights_only=True)
    return found


def assert_close(one: Any, other: Any) -> None:
    if isinstance(one, Mapping):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    elif isinstance(one, Tensor):
        torch.testing.assert_close(other, one, rtol=2e-4, atol=1e-5)


_SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("norm_each", "value")]


@pytest.mark.parametrize("kind", ["norm", *_SLOW])
def test_two_shares_give_the_weights_of_one(tmp_path: Path, kind: ClipKind) -> None:
    """Whole weights, moments and averages in the checkpoint; step 4 sees a batch that is not finite."""
    options: dict[str, Any] = {
        "evaluation": EvaluationSettings(every=2),
        "clip": GradientClip(kind=kind, limit=0.1),
    }
    single = train(tmp_path / "one", World(), accumulate=4, **options)
    assert single.skipped == 1

    def work(world: World, folder: Path) -> None:
        run = train(folder, world, accumulate=2, **options)
        first = run.module.first.weight
        assert isinstance(first, DTensor)
        assert len(first.to_local()) < len(first)  # a share of the rows
        assert run.optimizer.state[first]["exp_avg"].to_local().shape == first.to_local().shape
        run.settle()

    assert in_two(work, tmp_path / "two") == [0, 0]
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert_close(one["module"], two["module"])
    assert_close(one["average"], two["average"])
    assert_close(one["optimizer"]["state"], two["optimizer"]["state"])
    assert_close(state(tmp_path / "one", "best.pt"), state(tmp_path / "two", "best.pt"))
    assert one["best"]["value"] == pytest.approx(two["best"]["value"], rel=1e-3)
    assert one["best"]["step"] == two["best"]["step"]


def test_a_run_in_shares_is_taken_up_bit_by_bit(tmp_path: Path) -> None:
    assert in_two(lambda world, folder: train(folder, world) and None, tmp_path / "whole") == [0, 0]

    def stopped(world: World, folder: Path) -> None:
        save = TrainingRun._save_and_evaluate

        def signalled(run: TrainingRun) -> None:
            save(run)
            if run.step == 2 and world.rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)

        TrainingRun._save_and_evaluate = signalled  # type: ignore[method-assign]
        with pytest.raises(RunStopped):
            train(folder, world)

    assert in_two(stopped, tmp_path / "part") == [0, 0]
    assert state(tmp_path / "part")["step"] == 3
    assert in_two(lambda world, folder: train(folder, world) and None, tmp_path / "part") == [0, 0]
    whole, part = state(tmp_path / "whole"), state(tmp_path / "part")
    assert part["step"] == 6
    for name in ("module", "average"):
        one, other = (s[name].get("weights", s[name]) for s in (whole, part))
        assert all(value.equal(other[key]) for key, value in one.items())


def test_a_checkpoint_does_not_show_how_it_was_trained(tmp_path: Path) -> None:
    """One process goes on with what two shares began, and two shares with what one began."""
    work = lambda world, folder: train(folder, world, steps=2) and None  # noqa: E731
    assert in_two(work, tmp_path) == [0, 0]
    run = train(tmp_path, World(), steps=4)
    assert run.step == 4
    assert in_two(lambda world, folder: train(folder, world, block=10**9) and None, tmp_path) == [0, 0]
    assert state(tmp_path)["step"] == 6

    def other(world: World, folder: Path) -> None:
        found = state(folder)
        found["module"]["first.weight"] = torch.zeros(4, 3)
        torch.save(found, folder / f"{world.rank}" / "last.pt")
        with pytest.raises(InvalidCheckpoint, match="another"):
            train(folder / f"{world.rank}", world)

    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    assert in_two(other, tmp_path) == [0, 0]


def test_what_cannot_be_shared_out_is_refused() -> None:
    head = Head()
    with pytest.raises(Unsupported, match="spread over processes"):
        TrainingRun(
            folder=Path("nowhere"),
            module=head,
            optimizer=torch.optim.SGD(head.parameters(), lr=0.1),
            schedule=Schedule(steps=1, learning_rate=0.1),
            settings=LoopSettings(sharded=True),
            world=World(size=2),
        )
