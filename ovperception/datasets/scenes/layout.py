"""Where things lie: regions of stuff, and places for objects that leave every object visible."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.scenes.categories import STUFF_NAMES, StuffName
from ovperception.datasets.scenes.drawing import DrawnObject, window
from ovperception.datasets.scenes.sample import Int32

MIN_VISIBLE_FRACTION = 0.35
MIN_VISIBLE_PIXELS = 100
_MIN_REGION_FRACTION = 0.08


def stuff_regions(
    rng: np.random.Generator, size: tuple[int, int], count: int
) -> tuple[NDArray[np.uint8], tuple[StuffName, ...]]:
    """Splits the picture by smooth curves.

    Args:
        rng: the source of all variation.
        size: (height, width).
        count: regions wanted, 1 to 3; fewer where a curve would leave a sliver.

    Returns:
        (H, W) uint8 region index, and the stuff of each region. Sky, where drawn, is the topmost.
    """
    names = [STUFF_NAMES[int(i)] for i in rng.choice(len(STUFF_NAMES), count, replace=False)]
    names.sort(key=lambda name: name != "sky")
    regions = np.zeros(size, np.uint8)
    for index in range(1, count):
        level = names[0] == "sky" and index == 1
        for _ in range(8):
            beyond = _beyond_curve(rng, size, level=level)
            proposal = np.where(beyond, np.uint8(index), regions)
            if (
                np.bincount(proposal.ravel(), minlength=index + 1).min()
                >= _MIN_REGION_FRACTION * proposal.size
            ):
                regions = proposal
                break
        else:
            return regions, tuple(names[:index])
    return regions, tuple(names)


def _beyond_curve(rng: np.random.Generator, size: tuple[int, int], *, level: bool) -> NDArray[np.bool_]:
    """Marks the pixels on one side of a wavy line; of a near-level one, those below it."""
    height, width = size
    angle = rng.uniform(-0.12, 0.12) if level else rng.uniform(-math.pi, math.pi)
    cosine, sine = round(math.cos(angle), 6), round(math.sin(angle), 6)
    ys = (np.arange(height)[:, None] - height / 2) / min(size)
    xs = (np.arange(width)[None, :] - width / 2) / min(size)
    along, across = xs * cosine + ys * sine, ys * cosine - xs * sine
    # a cubic of the way along the line: smooth, and exact in every machine's arithmetic
    bend = [rng.uniform(-0.25, 0.25), rng.uniform(-0.7, 0.7), rng.uniform(-1.2, 1.2)]
    if level or rng.random() < 0.3:
        bend[1:] = [bend[1] * 0.12, bend[2] * 0.12]
    beyond: NDArray[np.bool_] = across > bend[0] + along * along * (bend[1] + along * bend[2])
    return beyond


@dataclass(slots=True, kw_only=True)
class Arrangement:
    """The objects laid down so far.

    Attributes:
        top_object: (H, W) int32, for each pixel the number of the uppermost object, 0 for none.
        totals: pixels of each object's mask, inside the picture or not, hidden or not.
        visible: pixels of each object seen.
    """

    top_object: Int32
    totals: list[int] = field(default_factory=lambda: [0])
    visible: list[int] = field(default_factory=lambda: [0])

    def try_place(self, drawn: DrawnObject, top: int, left: int) -> bool:
        """Lays an object on top unless it, or one below it, would then show too little.

        Returns:
            Whether it was laid down.
        """
        size = (self.top_object.shape[0], self.top_object.shape[1])
        there, part = window(top, left, drawn.mask.shape, size)
        mask = drawn.mask[part]
        total, shown = int(drawn.mask.sum()), int(mask.sum())
        if shown < max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_FRACTION * total):
            return False
        covered = np.bincount(self.top_object[there][mask], minlength=len(self.totals))
        for number in range(1, len(self.totals)):
            left_over = self.visible[number] - int(covered[number])
            if covered[number] and left_over < max(
                MIN_VISIBLE_PIXELS, MIN_VISIBLE_FRACTION * self.totals[number]
            ):
                return False
        for number in range(1, len(self.totals)):
            self.visible[number] -= int(covered[number])
        self.totals.append(total)
        self.visible.append(shown)
        self.top_object[there][mask] = len(self.totals) - 1
        return True
