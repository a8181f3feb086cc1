"""Counts how often things were named rightly, base and novel classes apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.scenes import SceneCategory

__all__ = ["NamingTally"]


class NamingTally:
    """Right and wrong answers by class.

    Args:
        things: the classes to choose from; an answer is an index into them.
    """

    def __init__(self, things: Sequence[SceneCategory]) -> None:
        self._novel = np.array([c.is_novel for c in things], np.bool_)
        self._right = np.zeros(len(things), np.int64)
        self._seen = np.zeros(len(things), np.int64)

    def add(self, truth: NDArray[np.int64], chosen: NDArray[np.int64]) -> None:
        """Takes (N,) true classes and (N,) answers."""
        np.add.at(self._seen, truth, 1)
        np.add.at(self._right, truth[chosen == truth], 1)

    def metrics(self, name: str) -> dict[str, float | None]:
        """Share of right answers: ``name``, ``name_base``, ``name_novel``; None without any."""
        groups = {"": np.ones_like(self._novel), "_base": ~self._novel, "_novel": self._novel}
        return {
            f"{name}{suffix}": float(self._right[group].sum() / seen)
            if (seen := self._seen[group].sum())
            else None
            for suffix, group in groups.items()
        }
