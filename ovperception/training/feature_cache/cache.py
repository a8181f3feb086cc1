"""A folder of shards as one thing to read from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidCheckpoint, InvalidDataset, MissingFile
from ovperception.training.epochs import Pick
from ovperception.training.feature_cache.key import CacheKey
from ovperception.training.feature_cache.shards import (
    CachedView,
    ShardFault,
    is_whole,
    read_view,
    shard_fault,
    usable,
    write_json,
)

__all__ = ["FeatureCache", "open_cache"]

_CARD = "cache.json"


@dataclass(frozen=True)
class FeatureCache:
    """An exported cache; view v of picture i lies at position ``v * pictures + i``.

    Attributes:
        folder: where it is.
        key: what it was made of.
        shard_views: positions in a shard.
    """

    folder: Path
    key: CacheKey
    shard_views: int

    def __len__(self) -> int:
        """Number of views, those that cannot be used among them."""
        return self.key.pictures * self.key.views

    @property
    def shards(self) -> tuple[Path, ...]:
        """The files, written or not."""
        count = -(-len(self) // self.shard_views)
        return tuple(self.folder / f"{number:06d}.safetensors" for number in range(count))

    @property
    def missing(self) -> tuple[Path, ...]:
        """Shards that are not whole yet."""
        return tuple(path for path in self.shards if not is_whole(path))

    @property
    def nbytes(self) -> int:
        """Bytes of the shards that are there."""
        return sum(path.stat().st_size for path in self.shards if path.is_file())

    def positions(self, shard: int) -> range:
        """Which views a shard holds."""
        return range(shard * self.shard_views, min(len(self), (shard + 1) * self.shard_views))

    def pick(self, position: int) -> Pick:
        """The picture and the epoch that a position stands for."""
        epoch, index = divmod(position, self.key.pictures)
        return Pick(index=index, epoch=epoch)

    def faults(self) -> list[ShardFault]:
        """Every shard that is missing or not as it was written; reads all of them."""
        return [fault for path in self.shards if (fault := shard_fault(path)) is not None]

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """(views, pictures) bool, which of them are there."""
        flags = np.concatenate([usable(path).numpy() for path in self.shards])
        return flags.reshape(self.key.views, self.key.pictures)

    def view(self, pick: Pick, stages: tuple[str, ...]) -> tuple[CachedView, Pick]:
        """A view or, where it cannot be used, that of the next picture that can, as in `first_usable`.

        Raises:
            InvalidDataset: no picture can be used.
        """
        number = pick.epoch % self.key.views
        there = np.flatnonzero(np.roll(self.usable[number], -pick.index))
        if not len(there):
            raise InvalidDataset(f"No picture of {self.folder} can be used", field="data")
        index = int(pick.index + there[0]) % self.key.pictures
        shard, place = divmod(number * self.key.pictures + index, self.shard_views)
        return read_view(self.shards[shard], place, stages), Pick(index=index, epoch=pick.epoch)


def make_cache(folder: Path, key: CacheKey, shard_views: int) -> FeatureCache:
    """The cache to go on writing to, or a new one.

    Raises:
        InvalidCheckpoint: the folder holds the features of something else.
    """
    if (folder / _CARD).is_file():
        cache = _read(folder)
        cache.key.require(key, folder)
        return cache
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _CARD, {"shard_views": shard_views, "key": key.to_dict()})
    return FeatureCache(folder, key, shard_views)


def open_cache(folder: Path, *, key: CacheKey | None = None, whole: bool = True) -> FeatureCache:
    """Open a cache.

    Args:
        folder: where it was exported to.
        key: what it has to be made of; None asks nothing.
        whole: whether its export has to have ended.

    Raises:
        MissingFile: there is no cache.
        InvalidCheckpoint: it is of something else, or its export did not end.
    """
    cache = _read(folder)
    if key is not None:
        cache.key.require(key, folder)
    if whole and (missing := cache.missing):
        raise InvalidCheckpoint(
            f"The export into {folder} did not end",
            expected=f"{len(cache.shards)} shards",
            got=f"{len(missing)} missing, the first being {missing[0].name}",
            mend="Export again with the same settings: it goes on where it stopped",
        )
    return cache


def _read(folder: Path) -> FeatureCache:
    path = folder / _CARD
    if not path.is_file():
        raise MissingFile(
            f"{folder} holds no features",
            field="cache",
            expected=f"a folder with {_CARD}",
            mend="Make one with `ovp features export`",
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        return FeatureCache(folder, CacheKey.from_dict(card["key"], path), int(card["shard_views"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InvalidCheckpoint):
            raise
        raise InvalidCheckpoint(f"{path} is broken", got=error, mend="Export the features anew") from error
