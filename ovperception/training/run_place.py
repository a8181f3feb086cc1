"""Where each process of a run stands: its random generators, and its place in a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ovperception.errors import InvalidCheckpoint
from ovperception.training.checkpoint import random_state, restore_random_state
from ovperception.training.streams import StreamSource

if TYPE_CHECKING:
    from rich.console import Console

    from ovperception.training.distributed import World

__all__ = ["RunPlace", "refusing_other_runs"]


class RunPlace:
    """What a checkpoint keeps of every process besides what all of them share.

    Args:
        world: the processes of the run.
        console: where people are told.
    """

    def __init__(self, world: World, console: Console) -> None:
        self.of_stream: Mapping[str, Any] | None = None
        self._generators: Mapping[str, Any] | None = None
        self._world = world
        self._console = console

    def move(self, source: object, batches: Sequence[Any]) -> None:
        """These were learned from; a source of numbered batches has no place."""
        if isinstance(source, StreamSource):
            for batch in batches:
                self.of_stream = source.after(self.of_stream, batch)

    def restore_generators(self, step: int) -> None:
        """As they were when the state was saved; at the first sitting, each process draws its own."""
        if self._generators is not None:
            restore_random_state(self._generators)
        elif self._world.size > 1:
            torch.manual_seed(torch.initial_seed() + 1000 * step + self._world.rank)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, of all processes; every one calls it."""
        states, places = self._world.gathered(random_state()), self._world.gathered(self.of_stream)
        return {"random": states, "places": places, "processes": self._world.size}

    def take_up(self, state: Mapping[str, Any], path: Path) -> None:
        """Go on from what `state` gave, as far as it is of this process.

        Raises:
            InvalidCheckpoint: it is of streams of another number of processes.
        """
        rank, size = self._world.rank, self._world.size
        states, places = state.get("random", ()), state.get("places", ())
        self._generators = states[rank] if rank < len(states) else None
        self.of_stream = places[rank] if rank < len(places) else None
        before = int(state.get("processes", size))
        if before == size:
            return
        if any(places):
            raise InvalidCheckpoint(
                f"{path} is of another number of processes",
                expected=f"{before}, each of which goes on where it was in its own shards",
                got=size,
            )
        # A step sees the same pictures, but what is drawn at random differs from here on.
        self._console.print(
            f"[yellow]resumed by {size} instead of {before} processes:[/] random numbers differ "
            "from here on, so the weights will not be those of a run that was never stopped",
            highlight=False,
        )


@contextmanager
def refusing_other_runs(path: Path) -> Iterator[None]:
    """A state that does not fit is another run's.

    Raises:
        InvalidCheckpoint: what was in the block failed as a state of another shape makes it fail.
    """
    try:
        yield
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise InvalidCheckpoint(
            f"{path} is of another run",
            got=str(error).splitlines()[0],
            mend="Give another out=FOLDER, or remove the file to begin anew",
        ) from error
