"""What every training run shares: steps, resumable state, evaluation, and a log of numbers.

A run that is killed at any step and resumed ends with the very weights of one that was not, bit for bit, on
the same device and by steps (a run by minutes depends on the clock): the checkpoint holds the weights, the
optimizer, the average, the clipping policy, all random generators and the sums that are not logged yet, and
batches are a function of their number (`ovperception.training.batches`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from ovperception.errors import InvalidDataset, ResourceExhausted
from ovperception.training.batches import BatchSource, batch_names, numbered_batches
from ovperception.training.checkpoint import load_checkpoint, save_checkpoint
from ovperception.training.distributed import ParallelLosses, World
from ovperception.training.evaluation import Best, Evaluate
from ovperception.training.evaluation_rounds import EvaluationRounds
from ovperception.training.learner import Learner, Losses
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.run_log import RunLog
from ovperception.training.run_place import RunPlace, refusing_other_runs
from ovperception.training.schedule import Schedule
from ovperception.training.sharding import Shards
from ovperception.training.stopping import RunStopped, StopRequest
from ovperception.training.streams import StreamSource
from ovperception.training.unsound_steps import UnsoundSteps
from ovperception.training.workers import lost_workers_told
from ovperception.training.wrong_data import WrongData

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Losses", "Schedule", "TrainingRun"]


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
        wrong: counts what batches of files left out, and may end the run; None where nothing can be wrong.
        step: steps done.
        elapsed_s: seconds trained, over all sittings.
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
    wrong: WrongData | None = None
    step: int = 0
    elapsed_s: float = 0.0

    def __post_init__(self) -> None:
        """Make the parts that have a state of their own."""
        self._console = Console(stderr=True, quiet=not self.world.writes)
        told = (self.folder, self.settings, self.world, self._console)
        self._learner = Learner(
            self.module,
            self.optimizer,
            self.settings,
            self.world,
            shards=self.shards,
            float16=self.float16,
        )
        self._rounds = EvaluationRounds(
            self.evaluate,
            self.settings.evaluation,
            self._learner,
            folder=self.folder,
            world=self.world,
            console=self._console,
        )
        self._log = RunLog(*told)
        self._unsound = UnsoundSteps(*told)
        self._place = RunPlace(self.world, self._console)

    @property
    def best(self) -> Best:
        """What the evaluations found best so far."""
        return self._rounds.best

    @property
    def skipped(self) -> int:
        """Steps that were left out because a number was not finite."""
        return self._unsound.count

    @property
    def finished(self) -> bool:
        """Whether the plan is done, by steps or by minutes, or patience has run out."""
        return self.schedule.progress(self.step, self.elapsed_s) >= 1.0 or self.best.exhausted

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the weights before the first step; the average begins from them too."""
        self._learner.begin_from(weights)

    def resume(self) -> bool:
        """Take up ``last.pt`` if there is one.

        Raises:
            InvalidCheckpoint: it belongs to a run of another shape.
        """
        path = self.folder / "last.pt"
        if not path.is_file():
            return False
        state = load_checkpoint(path)
        with refusing_other_runs(path):
            self._learner.take_up(state)
            self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])
            if "best" in state:
                self.best.load_state_dict(state["best"])
            self._unsound.count = int(state.get("skipped", 0))
            self._log.sums = {name: list(sums) for name, sums in state.get("sums", {}).items()}
            self._place.take_up(state, path)
        return True

    def save(self) -> None:
        """Write ``last.pt`` in one move; every process calls it, one writes.

        Raises:
            ResourceExhausted: no room; the file that stood there is intact.
        """
        state = self._learner.state() | self._place.state()
        state |= {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "best": self.best.state_dict(),
            "skipped": self.skipped,
            "sums": self._log.sums,
        }
        self.world.told_by_writer(lambda: save_checkpoint(self.folder / "last.pt", state))

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
            ResourceExhausted: the last state could not be written, or a worker was killed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        wrapped = ParallelLosses(self.module, losses, self.world, self.shards)
        if isinstance(source, StreamSource):
            batches = source.stream(self._place.of_stream, self._numbers())
        else:
            on_gpu = self.world.device.startswith("cuda")
            batches = numbered_batches(source, self._numbers(), workers=workers, for_gpu=on_gpu)
        with self._log.open(self.step, self.schedule.steps):
            self._place.restore_generators(self.step)
            with lost_workers_told(), StopRequest() as stop:
                self._steps(wrapped, batches, source, stop)
            self.save()

    def settle(self) -> None:
        """Give the module the weights to ship: the best evaluated, else the average, else its own."""
        self._rounds.settle()

    def _numbers(self) -> range:
        """The parts that this process sees from here on."""
        parts = self.settings.accumulate * self.world.size
        first, last = self.step * parts, self.schedule.steps * parts
        return range(first + self.world.rank, last, self.world.size)

    def _steps(
        self, wrapped: ParallelLosses, batches: Iterator[tuple[int, Any]], source: object, stop: StopRequest
    ) -> None:
        mark = time.perf_counter()
        while not self.finished:
            rate = self.schedule.rate(self.step, self.elapsed_s)
            self._learner.set_rate(rate)
            drawn = self._drawn(batches)
            named = self._learner.gradients(wrapped, [batch for _, batch in drawn])
            self._place.move(source, [batch for _, batch in drawn])
            numbers = _read(named, self._learner.clip())
            lost = not all(math.isfinite(numbers[name]) for name in named)
            steep = not math.isfinite(numbers["gradient_norm"])
            now = time.perf_counter()
            told = self.world.largest(
                float(lost), float(steep), stop.signal_number, self.elapsed_s + now - mark
            )
            mark, self.elapsed_s = now, told[3]
            sound = not told[0] and not told[1]
            if self._learner.scale.forgives(losses_sound=not told[0], gradients_sound=not told[1]):
                self._learner.forget()
            elif sound:
                self._learner.update()
            else:
                self._leave_out(named, [number for number, _ in drawn], source)
            self.step += 1
            if sound:
                self._log.note(self.step, self.elapsed_s, numbers, rate)
            self._save_and_evaluate()
            if told[2] and not self.finished:
                self.save()
                raise RunStopped(self.step, int(told[2]))

    def _drawn(self, batches: Iterator[tuple[int, Any]]) -> list[tuple[int, Any]]:
        """The parts of one step. Where the data of one process goes wrong, all end with what they learned."""
        drawn: list[tuple[int, Any]] = []
        fault: InvalidDataset | None = None
        try:
            for _ in range(self.settings.accumulate):
                number, batch = next(batches)
                if self.wrong is not None:
                    self.wrong.note(batch.troubles)
                drawn.append((number, batch))
        except InvalidDataset as error:
            fault = error
        if self.world.largest(float(fault is not None))[0]:
            self.save()
            raise fault or InvalidDataset("The data of another process went wrong", field="data")
        return drawn

    def _leave_out(self, named: Mapping[str, Tensor], batches: list[int], source: object) -> None:
        """Report a step whose numbers are not finite, and forget it."""
        images = [name for number in batches for name in batch_names(source, number)]
        try:
            self._unsound.tell(self.step, named, self.module, batches=batches, images=images)
        finally:
            self._learner.forget()

    def _save_and_evaluate(self) -> None:
        if self._rounds.due(self.step, last=self.finished):
            try:
                metrics = self._rounds.judge(self.step)
            except InvalidDataset:  # in all processes
                self.save()
                raise
            self._log.record(self.step, self.elapsed_s, metrics)
        if self.step % self.settings.save_every == 0:
            try:
                self.save()
            except ResourceExhausted as error:  # the next one may find room; the last one stays
                self._console.print(f"[yellow]not saved:[/] {error}", highlight=False)


def _read(named: Mapping[str, Tensor], norm: Tensor) -> dict[str, float]:
    """Losses, their sum and the norm, in one transfer: each by itself would wait for the device."""
    losses = torch.stack([*named.values()])
    total = losses.sum()
    read = torch.cat((total[None], losses, norm.to(losses.device).reshape(1))).tolist()
    return dict(zip(("loss", *named, "gradient_norm"), read, strict=True))
