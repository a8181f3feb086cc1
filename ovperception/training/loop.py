"""What every training run shares: schedule, parameter groups, resumable state, progress, a log of numbers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ovperception.errors import InvalidCheckpoint, InvalidParameter

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Schedule", "TrainingRun", "parameter_groups"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Linear warm-up, then a cosine to a hundredth of the peak.

    Attributes:
        steps: planned number of steps.
        learning_rate: the peak.
        warmup: steps of linear warm-up.
        minutes: wall-clock budget, or None. The cosine follows whichever of steps and minutes is further
            along, so that a run on a slow machine still ends annealed.
    """

    steps: int
    learning_rate: float
    warmup: int = 100
    minutes: float | None = None

    def __post_init__(self) -> None:
        """Refuse a schedule that trains nothing."""
        for name in ("steps", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InvalidParameter(f"{name} must be positive", field=name, got=getattr(self, name))

    def progress(self, step: int, elapsed_s: float) -> float:
        """Fraction of the run that is over, 0-1."""
        by_time = elapsed_s / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(step / self.steps, by_time))

    def rate(self, step: int, elapsed_s: float) -> float:
        """Learning rate of one step."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress(step, elapsed_s)))
        return self.learning_rate * warm * (0.01 + 0.99 * cosine)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices decay; biases, norms, tables of queries and scales do not."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        matrix = parameter.ndim >= 2 and not any(key in name for key in ("embed", "query", "level"))
        (decay if matrix else plain).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


@dataclass(kw_only=True)
class TrainingRun:
    """The state of one run in one folder: it can be stopped at any time and taken up again.

    Attributes:
        folder: where ``last.pt`` and ``log.jsonl`` are kept.
        module: what is trained.
        optimizer: its optimizer.
        schedule: the learning-rate plan.
        step: steps done.
        elapsed_s: seconds trained, over all sittings.
    """

    folder: Path
    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    save_every: int = 200
    log_every: int = 20
    step: int = 0
    elapsed_s: float = 0.0
    _sums: dict[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the plan is done, by steps or by minutes."""
        return self.schedule.progress(self.step, self.elapsed_s) >= 1.0

    def resume(self) -> bool:
        """Take up ``last.pt`` if there is one.

        Raises:
            InvalidCheckpoint: it belongs to a run of another shape.
        """
        import torch

        path = self.folder / "last.pt"
        if not path.is_file():
            return False
        state = torch.load(path, map_location="cpu", weights_only=True)
        try:
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InvalidCheckpoint(
                f"{path} is of another run",
                got=str(error).splitlines()[0],
                mend="Give another out=FOLDER, or remove the file to begin anew",
            ) from error
        self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])
        return True

    def save(self) -> None:
        """Write ``last.pt`` in one move."""
        import torch

        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }
        partial = self.folder / "last.pt.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "last.pt")

    def record(self, numbers: Mapping[str, float]) -> None:
        """Append one line to ``log.jsonl``."""
        line = {"step": self.step, "elapsed_s": round(self.elapsed_s, 1)}
        line |= {k: round(float(v), 5) for k, v in numbers.items()}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def run(self, losses: Iterable[Mapping[str, torch.Tensor]], *, clip_norm: float | None = None) -> None:
        """Drive the loop: each item of `losses` is one step's named losses; their sum is minimised.

        The iterable computes lazily, so a step's forward happens when its item is asked for.
        """
        import torch

        self.folder.mkdir(parents=True, exist_ok=True)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        source = iter(losses)
        with self._progress() as progress:
            task = progress.add_task("training", total=self.schedule.steps, completed=self.step, loss=0.0)
            while not self.finished:
                begun = time.perf_counter()
                rate = self.schedule.rate(self.step, self.elapsed_s)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group.get("rate_factor", 1.0)
                named = next(source, None)
                if named is None:
                    break
                total = torch.stack([*named.values()]).sum()
                self.optimizer.zero_grad(set_to_none=True)
                total.backward()
                if clip_norm is not None:
                    torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
                self.optimizer.step()
                self.step += 1
                self.elapsed_s += time.perf_counter() - begun
                self._note(
                    {"loss": float(total.detach())} | {k: float(v.detach()) for k, v in named.items()}, rate
                )
                progress.update(task, completed=self.step, loss=float(total.detach()))
                if self.step % self.save_every == 0:
                    self.save()
        self.save()

    def _note(self, numbers: dict[str, float], rate: float) -> None:
        for key, value in numbers.items():
            total, count = self._sums.get(key, (0.0, 0))
            self._sums[key] = total + value, count + 1
        if self.step % self.log_every == 0:
            self.record({k: total / count for k, (total, count) in self._sums.items()} | {"rate": rate})
            self._sums = {}

    @staticmethod
    def _progress() -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
