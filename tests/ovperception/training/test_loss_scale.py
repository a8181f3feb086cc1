"""In float16 small gradients live, overflows cost a step and no more, and a resumed run knows its scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ovperception.errors import Diverged, InvalidParameter
from ovperception.training.gradients import GradientClip
from ovperception.training.loop import TrainingRun
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.loss_scale import LossScale, multiplied_in
from ovperception.training.schedule import Schedule

SMALL = 1e-8
"""Of a gradient that float16 rounds to zero."""


class Batches:
    def __getitem__(self, number: int) -> Tensor:
        return torch.randn(4, 3, generator=torch.Generator().manual_seed(number))


def train(folder: Path, steps: int, *, float16: bool, factor: float = SMALL, skips: int = 0) -> TrainingRun:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    run = TrainingRun(
        folder=folder,
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        schedule=Schedule(steps=steps, learning_rate=1e-2 / factor, warmup=1, shape="constant"),
        settings=LoopSettings(
            tensorboard=False, save_every=2, log_every=1, skips=skips, clip=GradientClip(kind="none")
        ),
        float16=float16,
    )

    def losses(batch: Tensor) -> Mapping[str, Tensor]:
        with torch.autocast("cpu", torch.float16, enabled=float16):
            seen = module(batch)
        return {"fit": factor * (seen.float() - batch.sum(1, keepdim=True)).square().mean()}

    run.resume()
    run.run(Batches(), losses)
    return run


def weights(run: TrainingRun) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.module.state_dict().items()}


def test_gradients_too_small_for_float16_arrive(tmp_path: Path) -> None:
    exact = weights(train(tmp_path / "float32", 8, float16=False))
    scaled = weights(train(tmp_path / "float16", 8, float16=True))
    start = nn.Linear(3, 2)
    torch.manual_seed(0)
    start.reset_parameters()
    assert (exact["weight"] - start.weight).abs().max() > 1e-2  # there was something to learn
    torch.testing.assert_close(scaled["weight"], exact["weight"], rtol=1e-2, atol=2e-3)


def test_an_overflow_lowers_the_scale_and_is_no_fault(tmp_path: Path) -> None:
    """At 2**16 these gradients overflow: the first steps are left out, none of them counted."""
    run = train(tmp_path, 8, float16=True, factor=40.0)
    assert run.skipped == 0
    assert not (tmp_path / "problems.jsonl").exists()
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert 1 < state["loss_scale"]["scale"] < 2**16
    assert state["loss_scale"]["sound"] == 8 - (16 - torch.tensor(state["loss_scale"]["scale"]).log2())


def test_a_run_in_float16_is_taken_up_with_its_scale(tmp_path: Path) -> None:
    whole = weights(train(tmp_path / "whole", 8, float16=True, factor=40.0))
    train(tmp_path / "part", 2, float16=True, factor=40.0)
    part = weights(train(tmp_path / "part", 8, float16=True, factor=40.0))
    assert all(value.equal(part[name]) for name, value in whole.items())
    # Another scale to go on with would leave out other steps.
    state = torch.load(tmp_path / "part" / "last.pt", weights_only=True)
    assert state["loss_scale"] == torch.load(tmp_path / "whole" / "last.pt", weights_only=True)["loss_scale"]


def test_what_no_scale_mends_is_told(tmp_path: Path) -> None:
    with pytest.raises(Diverged):
        train(tmp_path, 3, float16=True, factor=1e39)


def test_the_scale_doubles_after_sound_steps() -> None:
    scale = LossScale(enabled=True, interval=3)
    for _ in range(3):
        assert not scale.forgives(losses_sound=True, gradients_sound=True)
    assert scale.scale == 2**17
    assert scale.forgives(losses_sound=True, gradients_sound=False)
    assert (scale.scale, scale.sound) == (2**16, 0)
    scale.scale = 1.0
    assert not scale.forgives(losses_sound=True, gradients_sound=False)  # it is not the scale


def test_a_run_multiplies_in_one_type() -> None:
    assert multiplied_in(bfloat16=False, float16=False) is torch.float32
    with pytest.raises(InvalidParameter, match="one type"):
        multiplied_in(bfloat16=True, float16=True)
