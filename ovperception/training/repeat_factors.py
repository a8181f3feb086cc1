"""Repeat-factor sampling: pictures with rare classes are seen more often.

Source: Gupta et al. 2019 ("LVIS"), section B.2. A class that is in a share f of the pictures has the factor
max(1, sqrt(t / f)), and a picture that of its rarest class. Published, each epoch rounds every factor up or
down by a toss of its own, so that epochs differ in length. Here the factors are rounded along their running
sum from one random start: as fair, every picture within one of its factor, and all epochs are of one length,
so that any batch can be told by its number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidParameter
from ovperception.training.epochs import Pick

__all__ = ["RepeatedOrder", "repeat_factors"]


def repeat_factors(classes: Sequence[Sequence[int]], threshold: float) -> tuple[float, ...]:
    """How often each picture is seen in an epoch.

    Args:
        classes: of every picture, the classes in it, of which it may name one more than once.
        threshold: t, the share of pictures below which a class is rare; 0.001 for LVIS.

    Returns:
        Factors of at least 1; exactly 1 for a picture without classes.
    """
    if not 0 < threshold <= 1:
        raise InvalidParameter("A share lies between 0 and 1", field="repeat_threshold", got=threshold)
    present = [sorted(set(found)) for found in classes]
    counts = Counter(c for found in present for c in found)
    factors = {c: max(1.0, math.sqrt(threshold * len(classes) / n)) for c, n in counts.items()}
    return tuple(max((factors[c] for c in found), default=1.0) for found in present)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedOrder:
    """As `EpochOrder`, but each picture as often as its factor says.

    Attributes:
        factors: of every picture.
        seed: of rounding and permutations.
        batch_size: pictures of a batch.
    """

    factors: tuple[float, ...]
    seed: int
    batch_size: int

    def __post_init__(self) -> None:
        if not self.factors or self.batch_size < 1 or min(self.factors) < 1:
            raise InvalidParameter(
                "An order needs pictures, factors of 1 or more, and a batch to fill", got=self.batch_size
            )

    @property
    def length(self) -> int:
        """Pictures of an epoch, repeated ones counted as often."""
        return round(sum(self.factors))

    def picks(self, number: int) -> tuple[Pick, ...]:
        """The ``batch_size`` pictures of a batch; no two picks of a picture have the same epoch."""
        # A picture that comes again within an epoch is seen in another view.
        apart = math.ceil(max(self.factors)) + 1
        found = []
        for position in range(number * self.batch_size, (number + 1) * self.batch_size):
            epoch, place = divmod(position, self.length)
            index, again = _epoch(self.factors, self.seed, epoch)[place]
            found.append(Pick(index=int(index), epoch=epoch * apart + int(again)))
        return tuple(found)


@lru_cache(maxsize=4)
def _epoch(factors: tuple[float, ...], seed: int, epoch: int) -> NDArray[np.int64]:
    """(length, 2): picture, and how often it came before in this epoch."""
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    length = round(sum(factors))
    sums = np.cumsum(factors) * (length / sum(factors))
    sums[-1] = length  # whatever rounding made of it
    ends = np.floor(sums + rng.random()).astype(np.int64)
    counts = ends - np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    index = np.repeat(np.arange(len(factors)), counts)
    again = np.arange(length) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack((index, again), axis=1)[rng.permutation(length)]
