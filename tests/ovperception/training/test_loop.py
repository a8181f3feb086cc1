"""The loop: what it keeps, what it leaves out, when it stops, and that it can be taken up bit by bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ovperception.errors import Diverged, InvalidCheckpoint, InvalidParameter, ResourceExhausted
from ovperception.training import evaluation
from ovperception.training.checkpoint import save_checkpoint
from ovperception.training.evaluation import GROUP, Evaluate, evaluator
from ovperception.training.gradients import GradientClip
from ovperception.training.loop import Losses, TrainingRun
from ovperception.training.loop_settings import EvaluationSettings, LoopSettings
from ovperception.training.schedule import Schedule
from ovperception.training.stopping import RunStopped


class Batches:
    """Batch n is drawn from n alone."""

    def __init__(self, spoilt: tuple[int, ...] = ()) -> None:
        self.spoilt = spoilt

    def names(self, number: int) -> list[str]:
        return [f"pictures/{number}.jpg"]

    def __getitem__(self, number: int) -> Tensor:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
        return x * float("nan") if number in self.spoilt else x


def make(folder: Path, steps: int = 8, **settings: Any) -> tuple[nn.Module, TrainingRun, Losses]:
    """A small net with a norm, and losses that draw from every generator."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 1))
    options = {"save_every": 3, "log_every": 2, "tensorboard": False} | settings
    evaluate: Evaluate | None = options.pop("evaluate", None)
    run = TrainingRun(
        folder=folder,
        module=module,
        optimizer=torch.optim.AdamW(module.parameters(), lr=0.1),
        schedule=Schedule(steps=steps, learning_rate=0.05, warmup=2),
        settings=LoopSettings(**options),
        evaluate=evaluate,
    )

    def losses(batch: Tensor) -> Mapping[str, Tensor]:
        noise = random.random() + float(np.random.rand()) + torch.rand(())
        wanted = batch.sum(1, keepdim=True) + 0.01 * noise
        return {
            "fit": (module(batch) - wanted).square().mean(),
            "small": 0.01 * module[3].bias.square().sum(),
        }

    return module, run, losses


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(value.equal(theirs[key]) for key, value in one.state_dict().items())


@contextmanager
def after(step: int, run: TrainingRun, act: Callable[[], None]) -> Iterator[None]:
    """Do something between a step and the next."""
    note = run._save_and_evaluate

    def noted() -> None:
        note()
        if run.step == step:
            act()

    run._save_and_evaluate = noted  # type: ignore[method-assign]
    yield


class Killed(Exception):
    pass


def kill() -> None:
    raise Killed


@pytest.mark.parametrize(
    ("step", "settings"),
    [(1, {}), (3, {}), (5, {"accumulate": 2}), (7, {"accumulate": 2, "ema": 0.9})],
    ids=["nothing-saved", "saved", "parts", "parts-and-average"],
)
def test_a_run_killed_at_any_step_ends_as_one_that_was_not(
    tmp_path: Path, step: int, settings: dict[str, Any]
) -> None:
    whole, run, losses = make(tmp_path / "whole", **settings)
    run.run(Batches(), losses)
    run.settle()
    _, first, losses = make(tmp_path / "part", **settings)
    with after(step, first, kill), pytest.raises(Killed):
        first.run(Batches(), losses)
    again, second, losses = make(tmp_path / "part", **settings)
    assert second.resume() is (step >= 3)
    assert second.step == step // 3 * 3
    random.random(), np.random.rand(), torch.rand(1)  # what the building of a model may draw
    if second.step:
        second.run(Batches(), losses, workers=1)
        second.settle()
        assert same(whole, again)
        logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "part")]
        one, other = ([{**json.loads(line), "elapsed_s": 0} for line in log] for log in logs)
        assert one == other
        assert [line["step"] for line in one] == [2, 4, 6, 8]


def train_slowly(folder: Path) -> None:
    """What a process of its own does: begin or go on, and leave the weights in ``final.pt``."""
    module, run, losses = make(folder, steps=60, save_every=1, ema=0.99)
    run.resume()

    def slow(batch: Tensor) -> Mapping[str, Tensor]:
        time.sleep(0.005)
        return losses(batch)

    run.run(Batches(), slow)
    torch.save(module.state_dict(), folder / "final.pt")


def start(folder: Path) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=train_slowly, args=(folder,))
    process.start()
    return process


# The child forks without exec: importing torch anew would take longer than the test.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_killed_at_a_random_moment_is_taken_up_bit_by_bit(tmp_path: Path) -> None:
    whole, run, losses = make(tmp_path / "whole", steps=60, save_every=1, ema=0.99)
    run.run(Batches(), losses)
    folder = tmp_path / "killed"
    process = start(folder)
    while not (folder / "last.pt").is_file():
        assert process.is_alive(), "it ended before it was killed"
        time.sleep(0.002)
    time.sleep(random.SystemRandom().uniform(0, 0.2))
    process.kill()
    process.join()
    assert not (folder / "final.pt").exists()
    process = start(folder)
    process.join()
    assert process.exitcode == 0
    state = torch.load(folder / "final.pt", weights_only=True)
    assert all(value.equal(state[key]) for key, value in whole.state_dict().items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_after_the_step_and_the_state_is_saved(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    whole, run, losses = make(tmp_path / "whole")
    run.run(Batches(), losses)
    _, first, losses = make(tmp_path / "part", save_every=100)
    with after(4, first, lambda: os.kill(os.getpid(), number)), pytest.raises(RunStopped) as stopped:
        first.run(Batches(), losses)
    assert (stopped.value.signal_number, stopped.value.step) == (number, 5)
    assert signal.getsignal(number) == before
    again, second, losses = make(tmp_path / "part")
    assert second.resume()
    assert second.step == 5
    second.run(Batches(), losses)
    assert same(whole, again)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_process_group_is_answered_after_the_step_too(
    tmp_path: Path, number: signal.Signals
) -> None:
    """As a terminal sends Ctrl-C and a service manager SIGTERM: to the workers as well."""

    def to_all() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, number)
        os.kill(os.getpid(), number)
        time.sleep(0.2)  # a worker that ends is noticed here

    _, run, losses = make(tmp_path, save_every=100)
    with after(4, run, to_all), pytest.raises(RunStopped):
        run.run(Batches(), losses, workers=2)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 5


def test_a_worker_that_was_killed_is_told_with_what_to_do(tmp_path: Path) -> None:
    def kill_one() -> None:
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        time.sleep(5)  # cut short by the news

    _, run, losses = make(tmp_path)
    with after(4, run, kill_one), pytest.raises(ResourceExhausted, match="goes on from what was saved last"):
        run.run(Batches(), losses, workers=1)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 3


def test_the_state_of_an_earlier_version_is_taken_up(tmp_path: Path) -> None:
    module, run, losses = make(tmp_path, ema=0.9)
    old = {"module": module.state_dict(), "optimizer": run.optimizer.state_dict()}
    tmp_path.mkdir(exist_ok=True)
    torch.save(old | {"step": 5, "elapsed_s": 12.5}, tmp_path / "last.pt")
    assert run.resume()
    assert (run.step, run.elapsed_s) == (5, 12.5)
    run.run(Batches(), losses)
    assert run.step == 8


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    _, run, losses = make(tmp_path, 2)
    run.run(Batches(), losses)
    other = nn.Linear(5, 1)
    wrong = TrainingRun(
        folder=tmp_path,
        module=other,
        optimizer=torch.optim.AdamW(other.parameters()),
        schedule=Schedule(steps=2, learning_rate=0.1),
    )
    with pytest.raises(InvalidCheckpoint, match="another run"):
        wrong.resume()


def test_a_file_that_is_no_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"half a")
    with pytest.raises(InvalidCheckpoint, match="cannot be read"):
        make(tmp_path)[1].resume()


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_last_state_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    before = path.read_bytes()
    with full_disk(4096), pytest.raises(ResourceExhausted, match=r"last\.pt could not be written"):
        save_checkpoint(path, {"step": 2, "weights": torch.zeros(10_000)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_training_goes_on_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, run, losses = make(tmp_path / "whole")
    run.run(Batches(), losses)
    module, run, losses = make(tmp_path / "part")
    write = torch.save
    full = [False, True, False]  # the states of steps 3, 6 and the end

    def save(state: object, file: Any) -> None:
        write(state, file)
        if full.pop(0):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    run.run(Batches(), losses)
    assert not full
    assert same(whole, module)
    assert "not saved" in capsys.readouterr().err


def test_a_step_that_is_not_finite_is_left_out_and_told(tmp_path: Path) -> None:
    module, run, losses = make(tmp_path / "spoilt", 8, accumulate=2)
    run.run(Batches(spoilt=(5,)), losses)
    assert run.skipped == 1
    assert all(value.isfinite().all() for value in module.state_dict().values())
    report = json.loads((tmp_path / "spoilt" / "problems.jsonl").read_text())
    assert report["step"] == 2
    assert report["images"] == ["pictures/4.jpg", "pictures/5.jpg"]
    assert report["losses"] == ["fit"]
    assert "0.weight" in report["gradients"]


def test_a_gradient_that_is_not_finite_is_traced_to_its_parameter(tmp_path: Path) -> None:
    module, run, _ = make(tmp_path, 3)

    def losses(batch: Tensor) -> Mapping[str, Tensor]:
        kink = module[3].bias.sum() - module[3].bias.sum().detach()  # sqrt is finite at 0, its slope is not
        return {"fit": module(batch).square().mean() + kink.abs().sqrt() * 0 + kink.square().sqrt()}

    run.run(Batches(), losses)
    reports = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    assert [(r["losses"], r["gradients"]) for r in reports] == [([], ["3.bias"])] * 3


@pytest.mark.parametrize("settings", [{"non_finite": "stop"}, {"skips": 0}], ids=str)
def test_a_recipe_may_stop_at_numbers_that_are_not_finite(tmp_path: Path, settings: dict[str, Any]) -> None:
    _, run, losses = make(tmp_path, **settings)
    with pytest.raises(Diverged, match=r"pictures/4\.jpg"):
        run.run(Batches(spoilt=(4,)), losses)
    _, again, _ = make(tmp_path)
    assert again.resume()
    assert again.step == 3  # what was trained before is there


def test_parts_add_up_to_the_gradient_of_their_mean(tmp_path: Path) -> None:
    seen: list[Tensor] = []
    for accumulate in (1, 4):
        torch.manual_seed(0)
        module = nn.Linear(3, 1)
        run = TrainingRun(
            folder=tmp_path / str(accumulate),
            module=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
            schedule=Schedule(steps=3, learning_rate=0.1, warmup=1),
            settings=LoopSettings(accumulate=accumulate, tensorboard=False, clip=GradientClip(kind="none")),
        )
        parts = Batches()
        whole = [torch.cat([parts[4 * step + k] for k in range(4)]) for step in range(3)]
        run.run(parts if accumulate == 4 else whole, lambda x, m=module: {"fit": (m(x) - 1).square().mean()})
        seen.append(module.weight.detach())
    torch.testing.assert_close(seen[0], seen[1])


def test_the_best_state_is_kept_and_shipped_and_patience_ends_the_run(tmp_path: Path) -> None:
    asked: list[int] = []
    weights: dict[int, Tensor] = {}

    def evaluate(module: nn.Module, step: int) -> Mapping[str, float]:
        assert not module.training
        assert not torch.is_grad_enabled()
        torch.rand(3)  # evaluation may draw: training does not notice
        asked.append(step)
        weights[step] = module[0].weight.detach().clone()  # type: ignore[index]
        return {"AP50": {2: 10.0, 4: 30.0, 6: 20.0, 8: 29.0, 10: 31.0}[step]}

    plan = EvaluationSettings(every=2, metric="AP50", higher=True, patience=2)
    module, run, losses = make(tmp_path / "best", 20, evaluation=plan, evaluate=evaluate)
    run.run(Batches(), losses)
    assert asked == [2, 4, 6, 8]
    assert (run.best.value, run.best.step) == (30.0, 4)
    run.settle()
    assert module[0].weight.equal(weights[4])  # type: ignore[index]
    log = [json.loads(line) for line in (tmp_path / "best" / "log.jsonl").read_text().splitlines()]
    assert [line["evaluation/AP50"] for line in log if "evaluation/AP50" in line] == [10.0, 30.0, 20.0, 29.0]
    plain, run, losses = make(tmp_path / "plain", 20)
    with after(4, run, kill), pytest.raises(Killed):
        run.run(Batches(), losses)
    assert plain[0].weight.equal(weights[4])  # type: ignore[index]


def test_a_best_state_that_could_not_be_written_gives_way_to_one_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = torch.save

    def save(state: Any, file: Any) -> None:
        write(state, file)
        if state.get("metrics") == {"AP50": 30.0}:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    plan = EvaluationSettings(every=2, metric="AP50", higher=True)
    numbers = {2: 10.0, 4: 30.0, 6: 20.0, 8: 5.0}
    _, run, losses = make(tmp_path, evaluation=plan, evaluate=lambda module, step: {"AP50": numbers[step]})
    run.run(Batches(), losses)
    assert (run.best.value, run.best.step) == (20.0, 6)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["step"] == 6


def test_a_metric_that_the_evaluator_does_not_give_is_named(tmp_path: Path) -> None:
    plan = EvaluationSettings(every=1, metric="PQ")
    _, run, losses = make(tmp_path, evaluation=plan, evaluate=lambda module, step: {"AP50": 1.0})
    with pytest.raises(InvalidParameter, match="AP50") as caught:
        run.run(Batches(), losses)
    assert caught.value.field == "evaluation.metric"


def test_numbers_go_to_tensorboard(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, run, losses = make(tmp_path, 4, tensorboard=True)
    run.run(Batches(), losses)
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("fit")] == [2, 4]
    assert {"loss", "small", "rate", "gradient_norm"} <= set(events.Tags()["scalars"])


def test_an_evaluator_of_an_entry_point_says_which_state_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a package registers under the name that a recipe gives; more is better, and step 4 is best."""
    asked: list[tuple[Any, Any]] = []

    def factory(recipe: Any, backbone: Any) -> Evaluate:
        asked.append((recipe, backbone))
        return lambda module, step: {"AP50": {2: 0.1, 4: 0.5, 6: 0.3, 8: 0.2}[step]}

    class Point:
        name = "scenes"

        def load(self) -> Any:
            return factory

    monkeypatch.setattr(evaluation, "entry_points", lambda group: [Point()] if group == GROUP else [])
    plan = EvaluationSettings(every=2, by="scenes", metric="AP50", higher=True)
    evaluate = evaluator(plan.by, "recipe", "backbone")  # type: ignore[arg-type]
    module, run, losses = make(tmp_path, evaluation=plan, evaluate=evaluate)
    run.run(Batches(), losses)
    assert asked == [("recipe", "backbone")]
    assert (run.best.value, run.best.step) == (0.5, 4)
    last = {name: value.clone() for name, value in module.state_dict().items()}
    run.settle()
    shipped = torch.load(tmp_path / "best.pt", weights_only=True)
    assert shipped["metrics"] == {"AP50": 0.5}
    assert all(value.equal(shipped["module"][name]) for name, value in module.state_dict().items())
    assert not all(value.equal(last[name]) for name, value in module.state_dict().items())
    with pytest.raises(InvalidParameter, match="nothing") as caught:
        evaluator("nothing", "recipe", "backbone")  # type: ignore[arg-type]
    assert "scenes" in caught.value.message


def test_another_number_of_processes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, run, losses = make(tmp_path, steps=2)
    run.run(Batches(), losses)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    save_checkpoint(tmp_path / "last.pt", state | {"processes": 2})
    _, again, _ = make(tmp_path, steps=2)
    assert again.resume()
    assert "by 1 instead of 2 processes" in " ".join(capsys.readouterr().err.split())
    # The streams of two processes are not those of one.
    save_checkpoint(tmp_path / "last.pt", state | {"processes": 2, "places": [{"batches": 1}] * 2})
    with pytest.raises(InvalidCheckpoint, match="number of processes"):
        make(tmp_path, steps=2)[1].resume()
