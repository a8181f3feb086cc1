"""Steps whose numbers are not finite: told with the images that made them, and no more than a few."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovperception.errors import Diverged
from ovperception.training.gradients import not_finite

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor, nn

    from ovperception.training.distributed import World
    from ovperception.training.loop_settings import LoopSettings

__all__ = ["UnsoundSteps"]

_GRADIENTS_TOLD = 20


class UnsoundSteps:
    """The steps of a run that were left out.

    Args:
        folder: of the run; ``problems.jsonl`` takes a line for each process that saw one.
        settings: what happens at one, and how many there may be.
        world: the processes that share the run; all of them call `tell`.
        console: where people are told.
    """

    def __init__(self, folder: Path, settings: LoopSettings, world: World, console: Console) -> None:
        self.count = 0
        self._file = folder / "problems.jsonl"
        self._settings = settings
        self._world = world
        self._console = console

    def tell(
        self,
        step: int,
        named: Mapping[str, Tensor],
        module: nn.Module,
        *,
        batches: Sequence[int],
        images: Sequence[str],
    ) -> None:
        """Count and report a step, whose gradients are still there.

        Args:
            step: its number.
            named: its losses.
            module: with its gradients.
            batches: numbers of what this process saw in it.
            images: their names.

        Raises:
            Diverged: the settings stop at the first, or there were too many.
        """
        report = {
            "step": step,
            "batches": [*batches],
            "images": [*images],
            "losses": not_finite(named.items()),
            "gradients": not_finite((n, p.grad) for n, p in module.named_parameters())[:_GRADIENTS_TOLD],
        }
        self.count += 1
        seen = self._world.gathered(report)
        # Gradients are exchanged: where no loss tells, any of the processes may have brought it.
        told = [r for r in seen if r["losses"]] or seen
        if self._world.writes:
            self._write(told)
        kind = "losses" if told[0]["losses"] else "gradients"
        names = ", ".join(name for r in told for name in r["images"])
        what = f"{kind} {sorted({n for r in told for n in r[kind]})} at step {step}, from {names}"
        self._console.print(f"[yellow]not finite:[/] {what}; the step is left out", highlight=False)
        if self._settings.non_finite == "stop" or self.count > self._settings.skips:
            raise Diverged(
                "Losses or gradients are not finite",
                got=what,
                mend=f"{self._file} names the images; lower the learning rate, clip "
                "harder, or leave such steps out (non_finite=skip, skips=N)",
            )

    def _write(self, reports: Sequence[Mapping[str, Any]]) -> None:
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(report) + "\n" for report in reports)
        except OSError as error:
            self._console.print(f"[yellow]not written:[/] {error}", highlight=False)
