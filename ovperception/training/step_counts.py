"""What the parts of one step have in common, for losses that are means over objects.

A step's batch may be seen in parts, one after the other or by several processes, and the gradient is the mean
of the parts'. A loss that each part divides by its own objects would then weigh an object by the company it
is in. Divided by the mean over all parts, the parts together give the loss of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ovperception.training.distributed import World

if TYPE_CHECKING:
    from ovperception.training.targets import Targets

__all__ = ["counted", "objects_of_part"]

_MEAN: ContextVar[float | None] = ContextVar("mean objects of a part", default=None)


@contextmanager
def counted(parts: Sequence[Any], world: World) -> Iterator[None]:
    """Inside the block `objects_of_part` knows all parts of a step; all processes enter it together.

    Args:
        parts: batches of this process; those without targets, such as captioned ones, count nothing.
        world: the processes.
    """
    if len(parts) * world.size == 1:
        yield
        return
    own = sum(_objects(part) for part in parts) / len(parts)
    mean = world.mean(own)
    token = _MEAN.set(mean)
    try:
        yield
    finally:
        _MEAN.reset(token)


def objects_of_part(targets: Sequence[Targets]) -> float:
    """How many objects a part of the step has: the mean over all of them, or those of `targets` alone."""
    mean = _MEAN.get()
    return float(sum(len(t.class_ids) for t in targets)) if mean is None else mean


def _objects(batch: Any) -> int:
    targets = batch[1] if isinstance(batch, tuple) else getattr(batch, "targets", ())
    return sum(len(target.class_ids) for target in targets)
