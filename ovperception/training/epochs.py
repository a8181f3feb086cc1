"""Which pictures a batch sees: every picture once an epoch, any batch at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidParameter

__all__ = ["EpochOrder", "Order", "Pick"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One picture of a batch.

    Attributes:
        index: of the picture.
        epoch: how many times all pictures were seen before.
    """

    index: int
    epoch: int


class Order(Protocol):
    """Which pictures a batch sees, told by its number."""

    def picks(self, number: int) -> tuple[Pick, ...]:
        """The pictures of a batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochOrder:
    """The order of a run; it knows no state, so a run can be taken up at any batch.

    Batches are numbered over all processes, each of which takes numbers of its own: together they see every
    picture once an epoch, and two processes repeat the run of one that accumulates two batches a step.

    Attributes:
        count: pictures.
        seed: of the permutations.
        batch_size: pictures of a batch.
    """

    count: int
    seed: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.count < 1 or self.batch_size < 1:
            raise InvalidParameter("An order needs pictures and a batch to fill", got=self)

    def picks(self, number: int) -> tuple[Pick, ...]:
        """The ``batch_size`` pictures of a batch."""
        found = []
        for position in range(number * self.batch_size, (number + 1) * self.batch_size):
            epoch, place = divmod(position, self.count)
            found.append(Pick(index=int(_permutation(self.seed, epoch, self.count)[place]), epoch=epoch))
        return tuple(found)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)
