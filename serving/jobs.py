"""Work that waits in a queue: who wants it, until when, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ovperception.errors import DeadlineExceeded, Unavailable
from serving.fairness import Priority
from serving.outcomes import Outcome

__all__ = ["Done", "Job", "Pace", "Terms", "closing"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On whose account work is done, and until when it is of use.

    Attributes:
        client: Who wants it; clients of one priority get equal shares.
        priority: How urgent it is.
        deadline_s: On `time.monotonic`'s clock.
    """

    client: str = ""
    priority: Priority = "normal"
    deadline_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Generic[T]):
    """A finished piece of work and what it cost."""

    value: T
    queue_ms: float
    run_ms: float
    batch_size: int = 1


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A piece of work; see `serving.fairness.Queued` for the first three."""

    terms: Terms
    cost: float = 1.0
    queued_s: float = field(default_factory=time.monotonic)
    outcome: Outcome[Any] = field(default_factory=Outcome)  # of Done

    @property
    def client(self) -> str:
        """Who wants it."""
        return self.terms.client

    @property
    def priority(self) -> Priority:
        """How urgent it is."""
        return self.terms.priority

    def start(self) -> bool:
        """Whether somebody still waits for it; it cannot be cancelled from then on."""
        return self.outcome.start() and self.in_time()

    def in_time(self) -> bool:
        """Whether its time is not up; if it is, who waits is told."""
        if time.monotonic() < self.terms.deadline_s:
            return True
        what = "The deadline passed before its turn came"
        self.outcome.refuse(DeadlineExceeded(what, mend="Allow more time"))
        return False

    def done(self, value: T, started: float, batch_size: int = 1) -> Done[T]:
        """What came of it, `started` on `time.monotonic`'s clock."""
        return Done(
            value=value,
            queue_ms=1e3 * (started - self.queued_s),
            run_ms=1e3 * (time.monotonic() - started),
            batch_size=batch_size,
        )


class Pace:
    """How long a unit of work takes, by the last few pieces."""

    def __init__(self) -> None:
        self.s_per_unit = 0.0

    def note(self, cost: float, spent_s: float) -> None:
        """A piece of work was done."""
        latest = spent_s / max(cost, 1e-9)
        self.s_per_unit = latest if not self.s_per_unit else 0.75 * self.s_per_unit + 0.25 * latest


def closing() -> Unavailable:
    """What is told to those who come, or still wait, when the server ends."""
    return Unavailable("The server is shutting down", mend="Try again, or try another server")
