"""What every training run shares: steps, resumable state, evaluation, and a log of numbers.

A run that is killed at any step and resumed ends with the very weights of one that was not, bit for bit, on
the same device and by steps (a run by minutes depends on the clock): the checkpoint holds the weights, the
optimizer, the average, the clipping policy, all random generators and the sums that are not logged yet, and
batches are a function of their number (`ovperception.training.batches`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ovperception.errors import (
    Diverged,
    InvalidCheckpoint,
    InvalidDataset,
    ResourceExhausted,
    Unsupported,
)
from ovperception.training.batches import BatchSource, batch_names, numbered_batches
from ovperception.training.checkpoint import (
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from ovperception.training.distributed import ParallelLosses, World
from ovperception.training.ema import MovingAverage
from ovperception.training.evaluation import Best, Evaluate, undisturbed
from ovperception.training.gradients import ClipPolicy, clip_policy, not_finite
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.loss_scale import LossScale
from ovperception.training.parameters import NormStatistics, parameter_groups
from ovperception.training.schedule import Schedule
from ovperception.training.sharding import Shards, shared_out, shared_out_optimizer
from ovperception.training.step_counts import counted
from ovperception.training.stopping import RunStopped, StopRequest
from ovperception.training.streams import StreamSource
from ovperception.training.tracking import Tracker, trackers

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Losses", "Schedule", "TrainingRun", "parameter_groups"]

Losses = Callable[[Any], Mapping[str, "Tensor"]]
"""A batch to named, weighted losses, with gradients; their sum is minimised."""


@dataclass(kw_only=True)
class TrainingRun:
    """The state of one run in one folder: it can be stopped at any time and taken up again.

    Attributes:
        folder: where ``last.pt``, ``best.pt``, ``log.jsonl`` and ``problems.jsonl`` are kept.
        module: what is trained.
        optimizer: its optimizer.
        schedule: the learning-rate plan.
        settings: how the loop goes about it.
        world: the processes that share the run.
        evaluate: gives the numbers of an evaluation, or None.
        shards: of the module, where its weights are spread over the processes.
        float16: whether the losses come of float16 products, so that they have to be scaled.
        step: steps done.
        elapsed_s: seconds trained, over all sittings.
        skipped: steps that were left out because a number was not finite.
    """

    folder: Path
    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    settings: LoopSettings = field(default_factory=LoopSettings)
    world: World = field(default_factory=World)
    evaluate: Evaluate | None = None
    shards: Shards | None = None
    float16: bool = False
    step: int = 0
    elapsed_s: float = 0.0
    skipped: int = 0
    _sums: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the parts that have a state of their own."""
        if self.settings.sharded and self.world.size > 1 and self.shards is None:
            raise Unsupported(
                "What this recipe trains cannot be spread over processes",
                field="loop.sharded",
                mend="Leave it out: each process holds the whole",
            )
        self.best = Best(self.settings.evaluation)
        self._scale = LossScale(enabled=self.float16)
        self._clip: ClipPolicy = clip_policy(self.settings.clip)
        self._average = MovingAverage(self.module, self.settings.ema) if self.settings.ema else None
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._statistics = NormStatistics(self.module)
        self._trackers: Sequence[Tracker] = ()
        self._random: Mapping[str, Any] | None = None
        self._place: Mapping[str, Any] | None = None
        self._console = Console(stderr=True, quiet=not self.world.writes)

    @property
    def finished(self) -> bool:
        """Whether the plan is done, by steps or by minutes, or patience has run out."""
        return self.schedule.progress(self.step, self.elapsed_s) >= 1.0 or self.best.exhausted

    def resume(self) -> bool:
        """Take up ``last.pt`` if there is one.

        Raises:
            InvalidCheckpoint: it belongs to a run of another shape.
        """
        path = self.folder / "last.pt"
        if not path.is_file():
            return False
        state = load_checkpoint(path)
        try:
            self._load_module(state["module"])
            optimizer = shared_out_optimizer(state["optimizer"], self.optimizer)
            self.optimizer.load_state_dict(dict(optimizer))
            self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])
            self._take_up(state)
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            raise InvalidCheckpoint(
                f"{path} is of another run",
                got=str(error).splitlines()[0],
                mend="Give another out=FOLDER, or remove the file to begin anew",
            ) from error
        return True

    def _load_module(self, state: Mapping[str, Any]) -> None:
        """Whole weights, of which this process may hold a share."""
        self.module.load_state_dict(shared_out(state, self.module.state_dict()))

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the weights before the first step; the average begins from them too."""
        self._load_module(weights)
        self._restart_average()

    def _restart_average(self) -> None:
        if self._average is not None:
            self._average = MovingAverage(self.module, self.settings.ema)

    def _take_up(self, state: Mapping[str, Any]) -> None:
        """The rest of the state; a checkpoint of version 0.1 has none of it."""
        if self._average is not None:
            if "average" in state:
                own = self._average.state_dict()
                self._average.load_state_dict(shared_out(state["average"], own))
            else:
                self._restart_average()
        self._clip.load_state_dict(state.get("clip", {}))
        self._scale.load_state_dict(state.get("loss_scale", {}))
        if "best" in state:
            self.best.load_state_dict(state["best"])
        self.skipped = int(state.get("skipped", 0))
        self._sums = {name: list(sums) for name, sums in state.get("sums", {}).items()}
        states = state.get("random", ())
        self._random = states[self.world.rank] if self.world.rank < len(states) else None
        places = state.get("places", ())
        self._place = places[self.world.rank] if self.world.rank < len(places) else None
        if state.get("processes", self.world.size) != self.world.size:
            self._warn_of_processes(int(state["processes"]), any(places))

    def _warn_of_processes(self, before: int, streams: bool) -> None:
        """A step sees the same pictures, but what is drawn at random differs from here on."""
        if streams:
            raise InvalidCheckpoint(
                f"{self.folder / 'last.pt'} is of another number of processes",
                expected=f"{before}, each of which goes on where it was in its own shards",
                got=self.world.size,
            )
        self._console.print(
            f"[yellow]resumed by {self.world.size} instead of {before} processes:[/] random numbers differ "
            "from here on, so the weights will not be those of a run that was never stopped",
            highlight=False,
        )

    def save(self) -> None:
        """Write ``last.pt`` in one move; every process calls it, one writes.

        Raises:
            ResourceExhausted: no room; the file that stood there is intact.
        """
        states, places = self.world.gathered(random_state()), self.world.gathered(self._place)
        state = self._state(states, places)
        self.world.told_by_writer(lambda: save_checkpoint(self.folder / "last.pt", state))

    def _state(self, random_states: list[dict[str, Any]], places: list[Any]) -> dict[str, Any]:
        state = {
            "module": self._whole(self.module.state_dict()),
            "optimizer": self._whole_optimizer(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "clip": self._clip.state_dict(),
            "loss_scale": self._scale.state_dict(),
            "best": self.best.state_dict(),
            "skipped": self.skipped,
            "sums": self._sums,
            "random": random_states,
            "places": places,
            "processes": self.world.size,
        }
        if self._average is not None:
            average = self._average.state_dict()
            state["average"] = average | {"weights": self._whole(average["weights"])}
        return state

    def _whole(self, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the process that writes keeps of weights that may be spread; every process calls it."""
        return weights if self.shards is None else self.shards.whole(weights, keep=self.world.writes)

    def _whole_optimizer(self) -> dict[str, Any]:
        if self.shards is None:
            return self.optimizer.state_dict()
        return self.shards.whole_optimizer(self.optimizer, keep=self.world.writes)

    def run(self, source: BatchSource[Any] | StreamSource[Any], losses: Losses, *, workers: int = 0) -> None:
        """Train until the plan is done; ``last.pt`` holds the end.

        Step s sees the parts ``s * n`` to ``s * n + n - 1`` of the source, n being processes x accumulated
        parts; the gradient is their mean.

        Args:
            source: batches by number, or a stream that tells its place.
            losses: of a batch, by `module`.
            workers: processes that prepare batches; a stream has its own.

        Raises:
            RunStopped: a signal asked to stop; the state is saved.
            InvalidDataset: too much of the data is wrong; the state is saved.
            Diverged: too many steps had numbers that are not finite.
            ResourceExhausted: the last state could not be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        wrapped = ParallelLosses(self.module, losses, self.world, self.shards)
        if isinstance(source, StreamSource):
            batches = source.stream(self._place, self._numbers())
        else:
            batches = numbered_batches(source, self._numbers(), workers=workers)
        if self.world.writes:
            self._trackers = trackers(self.settings, self.folder)
            for tracker in self._trackers:
                tracker.rewind(self.step)
        if self._random is not None:
            restore_random_state(self._random)
        elif self.world.size > 1:
            torch.manual_seed(torch.initial_seed() + 1000 * self.step + self.world.rank)
        try:
            with StopRequest() as stop, self._progress() as progress:
                task = progress.add_task("training", total=self.schedule.steps, completed=self.step, loss=0.0)
                self._steps(wrapped, batches, source, stop, (progress, task))
            self.save()
        except InvalidDataset:
            # What was trained before the data went wrong is kept; of several processes, the others wait.
            if self.world.size == 1:
                self.save()
            raise
        finally:
            for tracker in self._trackers:
                tracker.close()

    def _numbers(self) -> range:
        """The parts that this process sees from here on."""
        parts = self.settings.accumulate * self.world.size
        first, last = self.step * parts, self.schedule.steps * parts
        return range(first + self.world.rank, last, self.world.size)

    def _steps(
        self,
        wrapped: ParallelLosses,
        batches: Iterator[tuple[int, Any]],
        source: object,
        stop: StopRequest,
        bar: tuple[Progress, TaskID],
    ) -> None:
        mark = time.perf_counter()
        while not self.finished:
            rate = self._set_rate()
            self._statistics.keep()
            numbers, named = self._backward(wrapped, batches, source)
            self._scale.unscale(self._parameters)
            norm = self._clip(self._parameters)
            lost = not bool(torch.stack([*named.values()]).isfinite().all())
            now = time.perf_counter()
            told = self.world.largest(
                float(lost), float(not bool(norm.isfinite())), stop.signal_number, self.elapsed_s + now - mark
            )
            mark, self.elapsed_s = now, told[3]
            sound = not told[0] and not told[1]
            if self._scale.forgives(losses_sound=not told[0], gradients_sound=not told[1]):
                self._forget()
            elif sound:
                self.optimizer.step()
                if self._average is not None:
                    self._average.update()
            else:
                self._leave_out(numbers, named, source)
            self.step += 1
            if sound:
                self._note(named, norm, rate, bar)
            self._save_and_evaluate()
            if told[2] and not self.finished:
                self.save()
                raise RunStopped(self.step, int(told[2]))

    def _set_rate(self) -> float:
        rate = self.schedule.rate(self.step, self.elapsed_s)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        return rate

    def _backward(
        self, wrapped: ParallelLosses, batches: Iterator[tuple[int, Any]], source: object
    ) -> tuple[list[int], dict[str, Tensor]]:
        """Gradients of one step; the batches' numbers and the mean of their named losses."""
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        drawn = [next(batches) for _ in range(self.settings.accumulate)]
        with counted([batch for _, batch in drawn], self.world):
            for part, (_, batch) in enumerate(drawn, start=1):
                with wrapped.apart() if part < len(drawn) else nullcontext():
                    named = wrapped(batch)
                    self._scale.scaled(torch.stack([*named.values()]).sum() / len(drawn)).backward()
                for name, value in named.items():
                    share = value.detach().float() / len(drawn)
                    sums[name] = sums[name] + share if name in sums else share
        if isinstance(source, StreamSource):
            for _, batch in drawn:
                self._place = source.after(self._place, batch)
        return [number for number, _ in drawn], sums

    def _leave_out(self, numbers: list[int], named: Mapping[str, Tensor], source: object) -> None:
        """Report a step whose numbers are not finite, and forget it."""
        report = {
            "step": self.step,
            "batches": numbers,
            "images": [name for number in numbers for name in batch_names(source, number)],
            "losses": not_finite(named.items()),
            "gradients": not_finite((n, p.grad) for n, p in self.module.named_parameters())[:20],
        }
        self._forget()
        self.skipped += 1
        told = [r for r in self.world.gathered(report) if r["losses"]] or [report]
        if self.world.writes:
            self._write_problems(told)
        images = ", ".join(name for r in told for name in r["images"])
        what = f"losses {sorted({n for r in told for n in r['losses']})} at step {self.step}, from {images}"
        self._console.print(f"[yellow]not finite:[/] {what}; the step is left out", highlight=False)
        if self.settings.non_finite == "stop" or self.skipped > self.settings.skips:
            raise Diverged(
                "Losses or gradients are not finite",
                got=what,
                mend=f"{self.folder / 'problems.jsonl'} names the images; lower the learning rate, clip "
                "harder, or leave such steps out (non_finite=skip, skips=N)",
            )

    def _forget(self) -> None:
        """Undo what a step did that is left out."""
        self._statistics.restore()
        self.optimizer.zero_grad(set_to_none=True)

    def _write_problems(self, reports: Sequence[Mapping[str, Any]]) -> None:
        try:
            with (self.folder / "problems.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(report) + "\n" for report in reports)
        except OSError as error:
            self._console.print(f"[yellow]not written:[/] {error}", highlight=False)

    def _note(
        self, named: Mapping[str, Tensor], norm: Tensor, rate: float, bar: tuple[Progress, TaskID]
    ) -> None:
        """Add a step to the sums, and log their mean now and then."""
        total = torch.stack([*named.values()]).sum()
        numbers = {k: float(v) for k, v in ({"loss": total} | dict(named) | {"gradient_norm": norm}).items()}
        for name, value in numbers.items():
            entry = self._sums.setdefault(name, [0.0, 0])
            entry[0] += value
            entry[1] += 1
        progress, task = bar
        progress.update(task, completed=self.step, loss=numbers["loss"])
        if self.step % self.settings.log_every == 0:
            means = {name: torch.tensor(total / count) for name, (total, count) in self._sums.items()}
            self._record({**self._mean(means), "rate": rate})
            self._sums = {}

    def _mean(self, numbers: Mapping[str, Tensor]) -> dict[str, float]:
        """Over the processes; losses that only some of them saw count where they were seen."""
        seen: dict[str, list[float]] = {}
        for process in self.world.gathered({k: float(v) for k, v in numbers.items()}):
            for name, value in process.items():
                seen.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in seen.items()}

    def _record(self, numbers: Mapping[str, float]) -> None:
        """Log numbers of the current step; a full disk does not end the training."""
        for tracker in self._trackers:
            try:
                tracker.log(self.step, self.elapsed_s, numbers)
            except OSError as error:
                self._console.print(f"[yellow]not logged:[/] {error}", highlight=False)

    def _save_and_evaluate(self) -> None:
        every = self.settings.evaluation.every
        if self.evaluate is not None and every and (self.step % every == 0 or self.finished):
            self._evaluate()
        if self.step % self.settings.save_every == 0:
            try:
                self.save()
            except ResourceExhausted as error:  # the next one may find room; the last one stays
                self._console.print(f"[yellow]not saved:[/] {error}", highlight=False)

    def _evaluate(self) -> None:
        """Numbers of the averaged weights, if there are such; the best state is kept in ``best.pt``."""
        evaluate = self.evaluate
        assert evaluate is not None
        with self._average.applied() if self._average is not None else nullcontext():
            gathered = nullcontext() if self.shards is None else self.shards.gathered()
            with gathered, undisturbed(self.module):
                metrics = self.world.told_by_writer(lambda: dict(evaluate(self.module, self.step)))
            if self.best.take(metrics, self.step):
                module = self._whole(self.module.state_dict())
                state = {"module": module, "step": self.step, "metrics": metrics}
                try:
                    self.world.told_by_writer(lambda: save_checkpoint(self.folder / "best.pt", state))
                except ResourceExhausted as error:
                    self._console.print(f"[yellow]not saved:[/] {error}", highlight=False)
        self._record({f"evaluation/{name}": float(value) for name, value in metrics.items()})

    def settle(self) -> None:
        """Give the module the weights to ship: the best evaluated, else the average, else its own."""
        best = self.folder / "best.pt"
        if self.evaluate is not None and self.best.value is not None and best.is_file():
            self._load_module(load_checkpoint(best)["module"])
        elif self._average is not None:
            self._average.copy_to_module()

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=self._console,
        )
