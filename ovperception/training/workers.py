"""The processes that prepare batches: when they stop, and what is said when one is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ovperception.errors import ResourceExhausted

__all__ = ["leave_stopping_to_the_run", "lost_workers_told"]


def leave_stopping_to_the_run(worker: int) -> None:
    """Outlive a request to stop: it is the main process that finishes its step, saves, and then ends.

    Ctrl-C in a terminal and a service manager's SIGTERM reach every process of the group. A second SIGTERM
    ends the worker, for that is how torch ends one that hangs.

    Args:
        worker: its number, which torch tells.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _once)


def _once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)


@contextmanager
def lost_workers_told() -> Iterator[None]:
    """Inside the block the loss of a worker, which torch raises wherever it is noticed, is an error of ours.

    Raises:
        ResourceExhausted: a worker was killed, as Linux does when memory runs out.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise ResourceExhausted(
            "A process that prepares batches was killed",
            field="workers",
            got=error,
            mend="Memory may have run out: take fewer workers or a smaller batch_size. "
            "The same command goes on from what was saved last",
        ) from error
