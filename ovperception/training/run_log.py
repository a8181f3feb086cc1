"""What a run says while it goes: a bar for people, and the means of its numbers for files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ovperception.training.tracking import Tracker, trackers

if TYPE_CHECKING:
    from rich.console import Console

    from ovperception.training.distributed import World
    from ovperception.training.loop_settings import LoopSettings

__all__ = ["RunLog"]


class RunLog:
    """The numbers of a run, over all its processes; one of them writes.

    Args:
        folder: where ``log.jsonl`` and ``tensorboard/`` go.
        settings: how often, and where else to.
        world: the processes that share the run; all of them call `note`.
        console: where people are told.
    """

    def __init__(self, folder: Path, settings: LoopSettings, world: World, console: Console) -> None:
        self.sums: dict[str, list[float]] = {}
        self._folder = folder
        self._settings = settings
        self._world = world
        self._console = console
        self._trackers: Sequence[Tracker] = ()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=console,
        )

    @contextmanager
    def open(self, step: int, steps: int) -> Iterator[None]:
        """Inside the block numbers are kept and the bar is drawn.

        Args:
            step: steps done; what was logged later, by a sitting whose state was lost, is forgotten.
            steps: planned.
        """
        if self._world.writes:
            self._trackers = trackers(self._settings, self._folder)
        try:
            for tracker in self._trackers:
                tracker.rewind(step)
            with self._progress:
                self._task = self._progress.add_task("training", total=steps, completed=step, loss=0.0)
                yield
        finally:
            for tracker in self._trackers:
                tracker.close()
            self._trackers = ()

    def note(self, step: int, elapsed_s: float, numbers: Mapping[str, float], rate: float) -> None:
        """Add a step to the sums, and keep their mean now and then.

        Args:
            step: steps done.
            elapsed_s: seconds trained.
            numbers: of this process; ``loss`` is what the bar shows.
            rate: the learning rate.
        """
        for name, value in numbers.items():
            entry = self.sums.setdefault(name, [0.0, 0])
            entry[0] += value
            entry[1] += 1
        self._progress.update(self._task, completed=step, loss=numbers["loss"])
        if step % self._settings.log_every == 0:
            self.record(step, elapsed_s, {**self._means(), "rate": rate})
            self.sums = {}

    def record(self, step: int, elapsed_s: float, numbers: Mapping[str, float]) -> None:
        """Keep numbers of one step; a full disk does not end the training."""
        for tracker in self._trackers:
            try:
                tracker.log(step, elapsed_s, numbers)
            except OSError as error:
                self._console.print(f"[yellow]not logged:[/] {error}", highlight=False)

    def _means(self) -> dict[str, float]:
        """Over the processes; losses that only some of them saw count where they were seen."""
        own = {name: total / count for name, (total, count) in self.sums.items()}
        seen: dict[str, list[float]] = {}
        for process in self._world.gathered(own):
            for name, value in process.items():
                seen.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in seen.items()}
