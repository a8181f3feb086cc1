"""Where the numbers of a run go: ``log.jsonl`` always, TensorBoard and Weights & Biases on request."""

from __future__ import annotations

import importlib
import importlib.util
import json
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ovperception.errors import MissingDependency
from ovperception.training.checkpoint import write_whole
from ovperception.training.loop_settings import LoopSettings

__all__ = ["JsonLines", "TensorBoard", "Tracker", "WeightsAndBiases", "trackers"]


class Tracker(Protocol):
    """Takes numbers as they come."""

    def log(self, step: int, elapsed_s: float, numbers: Mapping[str, float]) -> None:
        """Keep the numbers of one step."""
        ...

    def rewind(self, step: int) -> None:
        """Forget what was logged after this step, by a sitting whose state was lost."""
        ...

    def close(self) -> None:
        """Write out what is held back."""
        ...


class JsonLines:
    """One line a step in a file that anything can read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, step: int, elapsed_s: float, numbers: Mapping[str, float]) -> None:
        """Append a line."""
        line = {"step": step, "elapsed_s": round(elapsed_s, 1)}
        line |= {k: round(float(v), 5) for k, v in numbers.items()}
        with self.path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def rewind(self, step: int) -> None:
        """Leave out later lines, and one that was cut off in the middle."""
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if (found := _step_of(line)) is not None and found <= step]
        if kept != lines:
            text = "".join(f"{line}\n" for line in kept)
            write_whole(self.path, lambda file: file.write(text.encode()))

    def close(self) -> None:
        """Nothing is held back."""


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


class TensorBoard:
    """Event files; a resumed run hides the steps after its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None
        self._purge: int | None = None

    def log(self, step: int, elapsed_s: float, numbers: Mapping[str, float]) -> None:
        """Add one scalar a number."""
        if self._writer is None:  # its import takes a second: a run that fails at once does not pay for it
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self._purge)
        for name, value in numbers.items():
            self._writer.add_scalar(name, float(value), step)

    def rewind(self, step: int) -> None:
        """Say so in the next event file."""
        self._purge = step + 1

    def close(self) -> None:
        """Write the events out."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run of a project; it needs the extra ``wandb`` and an account, or ``WANDB_MODE=offline``.

    The run's id is kept in the folder: a resumed training goes on in the run that it began. Its settings are
    those of the folder's recipe.
    """

    def __init__(self, project: str, folder: Path) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise MissingDependency(
                "Weights & Biases is not installed", field="wandb", mend="pip install 'ovperception[wandb]'"
            )
        wandb = importlib.import_module("wandb")
        known = folder / "wandb.id"
        if not known.is_file():
            write_whole(known, lambda file: file.write(secrets.token_hex(8).encode()))
        recipe = folder / "recipe.toml"
        self._run: Any = wandb.init(
            project=project,
            name=folder.name,
            dir=str(folder),
            id=known.read_text(),
            resume="allow",
            config=tomllib.loads(recipe.read_text(encoding="utf-8")) if recipe.is_file() else {},
        )

    def log(self, step: int, elapsed_s: float, numbers: Mapping[str, float]) -> None:
        """Send the numbers."""
        self._run.log({k: float(v) for k, v in numbers.items()}, step=step)

    def rewind(self, step: int) -> None:
        """Steps that were sent stay; later ones are taken from here on."""

    def close(self) -> None:
        """Send what is held back."""
        self._run.finish()


def trackers(settings: LoopSettings, folder: Path) -> Sequence[Tracker]:
    """Those that the settings ask for; TensorBoard only where it is installed.

    Raises:
        MissingDependency: Weights & Biases is asked for and not installed.
    """
    found: list[Tracker] = [JsonLines(folder / "log.jsonl")]
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is not None:
        found.append(TensorBoard(folder / "tensorboard"))
    if settings.wandb:
        found.append(WeightsAndBiases(settings.wandb, folder))
    return found
