"""The bootstrap over images: how often each image is drawn, and intervals of what comes of it.

Both runs are resampled with the same draws (a paired bootstrap), so that what is common to them, such as how
hard an image is, does not blur their difference. Intervals are percentiles of the resampled differences
(Efron and Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVEL", "draws", "interval"]

LEVEL = 0.95
"""Share of the resampled differences inside an interval."""
_KNOWN = 0.99
"""Share of resamples that must hold a class: one that lies in m images is missing from exp(-m) of them. Of a
class of one image every resample says the same, and an interval of no width would look like certainty."""


def draws(images: int, resamples: int, seed: int) -> NDArray[np.int32]:
    """(R, I) how often each image is drawn: as many draws as images, with replacement."""
    generator = np.random.default_rng(seed)
    counts = np.empty((resamples, images), np.int32)
    for row in counts:  # one at a time: R x I indices at once would be large
        row[:] = np.bincount(generator.integers(0, images, images), minlength=images)
    return counts


def interval(differences: NDArray[np.float64]) -> tuple[float, float] | None:
    """The middle 95 % of resampled differences; None of a class that lies in fewer than about five images.

    Args:
        differences: (R,), NaN where a resample holds no such class.
    """
    known = differences[~np.isnan(differences)]
    if not len(known) or len(known) < _KNOWN * len(differences):
        return None
    low, high = np.percentile(known, (50 * (1 - LEVEL), 50 * (1 + LEVEL))).tolist()
    return low, high
