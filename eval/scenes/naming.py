"""How often things were named rightly, base and novel classes apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.scenes import SceneCategory

__all__ = ["Pairs", "naming_numbers"]

Pairs = NDArray[np.int64]
"""(N, 2) the true thing and the one it was called, as indices into the things to choose from."""


def naming_numbers(name: str, pairs: Pairs, things: Sequence[SceneCategory]) -> dict[str, float | None]:
    """Share of right answers: ``name``, ``name_base``, ``name_novel``; None without any.

    Args:
        name: of the number.
        pairs: all answers.
        things: that were chosen from.
    """
    novel = np.array([c.is_novel for c in things], np.bool_)
    true, right = pairs[:, 0], pairs[:, 0] == pairs[:, 1]
    groups = {"": np.ones_like(novel), "_base": ~novel, "_novel": novel}
    return {
        f"{name}{suffix}": float(right[group[true]].sum() / seen) if (seen := group[true].sum()) else None
        for suffix, group in groups.items()
    }
