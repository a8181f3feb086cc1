"""How long to wait for a fuller batch.

Callers who ask again as soon as they are answered would fall into groups that take turns, each with a pass of
its own. So the model's thread waits for those it has just answered, until all are back or the time is up that
a larger batch makes up for, and for less and less of that while it does not.
"""

from __future__ import annotations

import time

__all__ = ["Gathering"]

# How long to wait after the last batch, as a share of what that took, and at most.
_GATHER_SHARE = 0.75
_LONGEST_GATHER_S = 0.02
_LEAST_PATIENCE = 1 / 32


class Gathering:
    """Who may come back, until when it pays to wait for them, and whether it has paid. Not thread-safe."""

    def __init__(self) -> None:
        self.batch_s = 0.0  # what the last batch took
        self.patience = 1.0  # how well it has paid to wait for more
        self._looked_s = 0.0  # when the last batch ended
        self._around = 0  # images of the last batch, and those that waited when it ended

    def looked(self, images: int, waiting: int, spent_s: float) -> None:
        """A batch of so many has ended just now."""
        self._looked_s = time.monotonic()
        self.batch_s = spent_s
        self._around = images + waiting

    def wanted(self, most: int) -> int:
        """Images to wait for, of `most`."""
        return min(most, self._around)

    def end_s(self) -> float:
        """Until when to wait, on `time.monotonic`'s clock."""
        share_s = min(_LONGEST_GATHER_S, _GATHER_SHARE * self.batch_s)
        return self._looked_s + self.patience * share_s

    def waited(self, spent_s: float, *, found: int, now: int) -> None:
        """While one waited for `spent_s`, the images that were there became `now` of `found`."""
        paid = (now - found) / found > spent_s / self.batch_s
        self.patience = 1.0 if paid else max(_LEAST_PATIENCE, self.patience / 2)
