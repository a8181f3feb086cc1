"""The three splits: endless, disjoint, and the same on every machine."""

from __future__ import annotations

import functools
from typing import Literal, get_args

from ovperception.datasets.scenes.categories import Frequency, load_categories
from ovperception.datasets.scenes.compose import render_scene
from ovperception.datasets.scenes.sample import SceneSample
from ovperception.errors import InvalidParameter

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
VERSION = "1.0"

_SEEDS_PER_SPLIT = 1 << 40
_TRAIN_WEIGHT: dict[Frequency, float] = {"f": 1.0, "c": 0.6, "r": 0.3}


def scene_seed(split: Split, index: int) -> int:
    """Gives the seed of one scene; no two splits share one.

    Raises:
        InvalidParameter: an unknown split, or an index outside 0 to 2**40 - 1.
    """
    if split not in SPLITS:
        raise InvalidParameter(
            "This split is not known", field="split", expected=f"one of {', '.join(SPLITS)}", got=split
        )
    if not 0 <= index < _SEEDS_PER_SPLIT:
        raise InvalidParameter(
            "There is no such scene", field="index", expected="an index from 0 to 2**40 - 1", got=index
        )
    return (SPLITS.index(split) + 1) * _SEEDS_PER_SPLIT + index


@functools.cache
def _pool(split: Split, base_only: bool) -> tuple[tuple[int, ...], tuple[float, ...]]:
    things = [c for c in load_categories() if c.is_thing and not (base_only and c.is_novel)]
    weights = tuple(_TRAIN_WEIGHT[c.frequency] if split == "train" else 1.0 for c in things)
    return tuple(c.id for c in things), weights


def scene(
    split: Split, index: int, size: tuple[int, int] = (512, 512), *, base_only: bool = False
) -> SceneSample:
    """Makes scene ``index`` of a split.

    The train split shows rare classes less often than frequent ones; val and test show all evenly.

    Args:
        split: "train", "val" or "test".
        index: which scene, 0 and up.
        size: (height, width).
        base_only: draw no novel class, as the heads are trained.

    Raises:
        InvalidParameter: an unknown split, a bad index or size.
    """
    seed = scene_seed(split, index)
    ids, weights = _pool(split, base_only)
    return render_scene(seed, size, categories=ids, weights=weights)
