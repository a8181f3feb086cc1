"""The loop: schedule, resuming, parameter groups."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ovperception.errors import InvalidCheckpoint, InvalidParameter
from ovperception.training.loop import Schedule, TrainingRun, parameter_groups


def test_the_rate_warms_up_and_falls_to_a_hundredth() -> None:
    plan = Schedule(steps=100, learning_rate=1.0, warmup=10)
    assert plan.rate(0, 0) == pytest.approx(0.1)
    assert plan.rate(50, 0) == pytest.approx(0.505)
    assert plan.rate(100, 0) == pytest.approx(0.01)


def test_minutes_end_a_run_that_is_too_slow_for_its_steps() -> None:
    plan = Schedule(steps=1000, learning_rate=1.0, minutes=1)
    assert plan.progress(10, 30) == pytest.approx(0.5)
    assert plan.progress(10, 61) == 1.0


def test_a_schedule_that_trains_nothing_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="steps"):
        Schedule(steps=0, learning_rate=1.0)
    with pytest.raises(InvalidParameter, match="learning_rate"):
        Schedule(steps=1, learning_rate=float("nan"))


def test_only_matrices_decay() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    module[0].bias.requires_grad_(False)
    decay, plain = parameter_groups(module, 0.1)
    assert [p.ndim for p in decay["params"]] == [2]
    assert [p.ndim for p in plain["params"]] == [1, 1]
    assert (decay["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def _run(folder: Path, steps: int) -> tuple[nn.Linear, TrainingRun]:
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    plan = Schedule(steps=steps, learning_rate=0.1, warmup=1)
    return module, TrainingRun(
        folder=folder, module=module, optimizer=optimizer, schedule=plan, save_every=4, log_every=2
    )


def _losses(module: nn.Linear, first: int) -> Iterator[dict[str, Tensor]]:
    step = first
    while True:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        yield {"fit": (module(x) - x.sum(1, keepdim=True)).square().mean()}
        step += 1


def test_a_run_that_was_stopped_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole, run = _run(tmp_path / "whole", 8)
    run.run(_losses(whole, 0))
    part, first = _run(tmp_path / "part", 8)
    source = _losses(part, 0)
    first.run(next(source) for _ in range(4))  # the source runs dry, as if the process were stopped
    again, second = _run(tmp_path / "part", 8)
    assert second.resume()
    assert second.step == 4
    second.run(_losses(again, second.step))
    assert torch.equal(whole.weight, again.weight)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert lines[-1]["fit"] < lines[0]["fit"]


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    module, run = _run(tmp_path, 2)
    run.run(_losses(module, 0))
    other = nn.Linear(5, 1)
    wrong = TrainingRun(
        folder=tmp_path,
        module=other,
        optimizer=torch.optim.AdamW(other.parameters()),
        schedule=Schedule(steps=2, learning_rate=0.1),
    )
    with pytest.raises(InvalidCheckpoint, match="another run"):
        wrong.resume()
