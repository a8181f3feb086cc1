"""How long a run is and how its learning rate moves: warm-up, then the shapes of the papers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ovperception.errors import InvalidParameter

__all__ = ["Schedule", "Shape"]

Shape = Literal["cosine", "steps", "poly", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Linear warm-up, then one of four shapes.

    Attributes:
        steps: planned number of steps.
        learning_rate: the peak.
        warmup: steps of linear warm-up; 0: none.
        minutes: wall-clock budget, or None. The shape follows whichever of steps and minutes is further
            along, so that a run on a slow machine still ends annealed.
        shape: ``cosine`` falls to `floor`; ``steps`` multiplies by `decay` at each of `decay_at`; ``poly`` is
            (1 - progress) ** `power`; ``constant`` stays.
        floor: share of the peak that a cosine ends at.
        decay_at: fractions of the run, rising.
        decay: factor of each of them.
        power: exponent of ``poly``.
        stairs: into how many equal stairs the progress is cut, as where a paper changes the rate once an
            epoch; None: it is smooth.
        warmup_from: share of the peak that the warm-up begins at, rising by ``step / warmup`` as in
            detectron2; None: step n of the warm-up has (n + 1) / warmup.
    """

    steps: int
    learning_rate: float
    warmup: int = 100
    minutes: float | None = None
    shape: Shape = "cosine"
    floor: float = 0.01
    decay_at: tuple[float, ...] = ()
    decay: float = 0.1
    power: float = 0.9
    stairs: int | None = None
    warmup_from: float | None = None

    def __post_init__(self) -> None:
        """Refuse a schedule that trains nothing."""
        for name in ("steps", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InvalidParameter(f"{name} must be positive", field=name, got=getattr(self, name))
        if self.minutes is not None and not self.minutes > 0:
            raise InvalidParameter("minutes must be positive", field="minutes", got=self.minutes)
        rising = list(self.decay_at) == sorted(set(self.decay_at))
        if not rising or any(not 0 < at < 1 for at in self.decay_at):
            raise InvalidParameter(
                "decay_at must be rising fractions of the run",
                field="decay_at",
                expected="numbers between 0 and 1, such as [0.9, 0.95]",
                got=self.decay_at,
            )

    def progress(self, step: int, elapsed_s: float) -> float:
        """Fraction of the run that is over, 0-1."""
        by_time = elapsed_s / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(step / self.steps, by_time))

    def rate(self, step: int, elapsed_s: float) -> float:
        """Learning rate of one step."""
        progress = self.progress(step, elapsed_s)
        if self.stairs is not None:
            progress = math.floor(progress * self.stairs) / self.stairs
        return self.learning_rate * self._warm(step) * self._shaped(progress)

    def _warm(self, step: int) -> float:
        if self.warmup_from is None:
            return min(1.0, (step + 1) / max(self.warmup, 1))
        done = min(1.0, step / max(self.warmup, 1))
        return self.warmup_from * (1 - done) + done

    def _shaped(self, progress: float) -> float:
        if self.shape == "cosine":
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
        if self.shape == "steps":
            return float(self.decay ** sum(progress >= at for at in self.decay_at))
        if self.shape == "poly":
            return float((1 - progress) ** self.power)
        return 1.0
