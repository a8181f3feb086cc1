"""Evaluations while a run trains: the averaged weights are judged, and the best ones kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ovperception.errors import ResourceExhausted
from ovperception.training.checkpoint import load_checkpoint, save_checkpoint
from ovperception.training.evaluation import Best, Evaluate, undisturbed

if TYPE_CHECKING:
    from rich.console import Console

    from ovperception.training.distributed import World
    from ovperception.training.learner import Learner
    from ovperception.training.loop_settings import EvaluationSettings

__all__ = ["EvaluationRounds"]


class EvaluationRounds:
    """When a run is judged, and what came of it; its best state is kept in ``best.pt``.

    Args:
        evaluate: gives the numbers, or None: nothing is judged.
        settings: when, and by which number.
        learner: whose weights are judged.
        folder: of the run.
        world: the processes that share the run; one judges, all call `judge`.
        console: where people are told.
    """

    def __init__(
        self,
        evaluate: Evaluate | None,
        settings: EvaluationSettings,
        learner: Learner,
        *,
        folder: Path,
        world: World,
        console: Console,
    ) -> None:
        self.best = Best(settings)
        self._evaluate = evaluate
        self._every = settings.every
        self._learner = learner
        self._file = folder / "best.pt"
        self._world = world
        self._console = console

    def due(self, step: int, *, last: bool) -> bool:
        """Whether the weights after so many steps are to be judged; the last ones always are."""
        return self._evaluate is not None and self._every > 0 and (last or step % self._every == 0)

    def judge(self, step: int) -> dict[str, float]:
        """Numbers of the weights as they are, averaged if there is an average.

        Raises:
            InvalidParameter: the number that says which is best is not among them.
        """
        evaluate, module = self._evaluate, self._learner.module
        assert evaluate is not None
        with self._learner.averaged():
            with self._learner.gathered(), undisturbed(module):
                metrics: dict[str, float] = self._world.told_by_writer(lambda: dict(evaluate(module, step)))
            before = self.best.state_dict()
            if self.best.take(metrics, step):
                state = {"module": self._learner.weights(), "step": step, "metrics": metrics}
                try:
                    self._world.told_by_writer(lambda: save_checkpoint(self._file, state))
                except ResourceExhausted as error:
                    self.best.load_state_dict(before)  # what is not there cannot be shipped
                    self._console.print(f"[yellow]not saved:[/] {error}", highlight=False)
        return {f"evaluation/{name}": float(value) for name, value in metrics.items()}

    def settle(self) -> None:
        """Give the module the weights to ship: the best judged, else the average, else its own."""
        if self._evaluate is not None and self.best.value is not None and self._file.is_file():
            self._learner.load_weights(load_checkpoint(self._file)["module"])
        else:
            self._learner.settle_on_average()
