"""What a run left out of its data, told when it ends, however it ends: on the screen and in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from ovperception.errors import ResourceExhausted
from ovperception.training.checkpoint import write_whole
from ovperception.training.distributed import World
from ovperception.training.stopping import RunStopped
from ovperception.training.wrong_data import Trouble, WrongData

__all__ = ["FILE_NAME", "told_at_the_end"]

FILE_NAME = "wrong_data.json"


@contextmanager
def told_at_the_end(
    wrong: WrongData, folder: Path, world: World, opened: WrongData | None = None
) -> Iterator[None]:
    """Within the block a run trains; behind it ``wrong_data.json`` says what it left out, by kind.

    Each sitting tells what it met itself.

    Args:
        wrong: counts what batches left out.
        folder: of the run.
        world: the processes that share the run; each met pictures of its own.
        opened: what was left out when the data was opened, the same in every process.
    """
    together = False  # one that fails alone must not wait for the others
    try:
        yield
        together = True
    except RunStopped:
        together = True
        raise
    finally:
        met = world.gathered(wrong.seen) if together else [wrong.seen]
        if world.writes:
            _tell(_whole(met, opened), folder)


def _whole(met: list[tuple[tuple[str, str], ...]], opened: WrongData | None) -> WrongData:
    """Everything once, whichever processes met it."""
    whole = WrongData()
    if opened is not None:
        whole.add(opened.counts, opened.examples)
    for seen in met:
        whole.note(Trouble(kind=kind, where=where, harmless=True) for kind, where in seen)
    return whole


def _tell(whole: WrongData, folder: Path) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for line in whole.lines():
        console.print(f"left out: {line}", markup=False)
    facts = {
        kind: {"count": count, "first": whole.examples[kind]} for kind, count in whole.counts.most_common()
    }
    try:
        write_whole(folder / FILE_NAME, lambda file: file.write(json.dumps(facts, indent=2).encode()))
    except ResourceExhausted as error:  # what was trained is worth more than this
        console.print(f"not written: {error}", markup=False)
