"""Computing the features of every view, once; what was written stays, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from ovperception.errors import InvalidParameter, OVPError
from ovperception.training.epochs import Pick
from ovperception.training.feature_cache.cache import FeatureCache, make_cache
from ovperception.training.feature_cache.key import CacheDtype, cache_key
from ovperception.training.feature_cache.shards import CachedView, is_whole, write_shard
from ovperception.training.labelled_batches import LabelledViews, View, trouble_of
from ovperception.training.loss_scale import multiplied_in
from ovperception.training.workers import leave_stopping_to_the_run, lost_workers_told
from ovperception.training.wrong_data import Trouble, WrongData

if TYPE_CHECKING:
    from ovperception.backbones.clip import ClipBackbone

__all__ = ["ExportSettings", "export_features"]

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """How features are written; only `dtype`, `stages`, `bfloat16` and `float16` change what is written.

    Attributes:
        dtype: type the maps are kept in.
        stages: names of the maps to keep; None: all.
        bfloat16: whether the backbone multiplies in bfloat16, as the recipe does.
        float16: or in float16.
        shard_views: views in a file.
        batch_size: views the backbone sees at once.
        workers: processes that read and augment.
        part: (k, n): write only every n-th shard from the k-th on, so that n processes share the work.
    """

    dtype: CacheDtype = "fp16"
    stages: tuple[str, ...] | None = None
    bfloat16: bool = False
    float16: bool = False
    shard_views: int = 128
    batch_size: int = 8
    workers: int = 0
    part: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        if min(self.shard_views, self.batch_size) < 1 or self.workers < 0:
            raise InvalidParameter("Views and batches are counted from 1, workers from 0", got=self)
        if not 0 <= self.part[0] < self.part[1]:
            raise InvalidParameter(
                "No such part", field="part", expected="(k, n) with 0 <= k < n", got=self.part
            )


@lost_workers_told()
def export_features(
    views: LabelledViews,
    backbone: ClipBackbone,
    folder: Path,
    settings: ExportSettings | None = None,
    *,
    wrong: WrongData | None = None,
    on_shard: Callable[[Path], object] = lambda path: None,
) -> FeatureCache:
    """Write what is missing of a cache.

    Args:
        views: the augmented pictures, so many views of each.
        backbone: frozen, where it is to compute.
        folder: where to; what an earlier export of the same key wrote there is kept.
        settings: how.
        wrong: counts pictures that cannot be used, and may end the export.
        on_shard: called with each file that was written.

    Raises:
        InvalidCheckpoint: the folder holds the features of something else.
        InvalidDataset: too much of the data is wrong.
        ResourceExhausted: the disk is full, or a worker was killed.
    """
    settings = ExportSettings() if settings is None else settings
    wrong = WrongData() if wrong is None else wrong
    key = cache_key(
        views,
        backbone,
        dtype=settings.dtype,
        stages=settings.stages,
        bfloat16=settings.bfloat16,
        float16=settings.float16,
    )
    cache = make_cache(folder, key, settings.shard_views)
    own = [n for n in range(len(cache.shards)) if n % settings.part[1] == settings.part[0]]
    wanted = [n for n in own if not is_whole(cache.shards[n])]
    positions = [p for n in wanted for p in cache.positions(n)]
    prepared = _prepared(_Positions(views, cache), positions, settings.workers)
    for number in wanted:
        count = len(cache.positions(number))
        found: list[CachedView | None] = []
        while len(found) < count:
            taken = [next(prepared) for _ in range(min(settings.batch_size, count - len(found)))]
            wrong.note(trouble for _, troubles in taken for trouble in troubles)
            found += _look(backbone, [view for view, _ in taken], cache, settings)
        write_shard(cache.shards[number], found)
        on_shard(cache.shards[number])
    return cache


_Prepared = tuple[View | None, tuple[Trouble, ...]]


class _Positions:
    """A map-style data set of the views by their positions."""

    def __init__(self, views: LabelledViews, cache: FeatureCache) -> None:
        self.views, self.cache = views, cache

    def __getitem__(self, position: int) -> _Prepared:
        pick: Pick = self.cache.pick(position)
        try:
            return self.views.view(pick)
        except OVPError as error:
            return None, (trouble_of(error, self.views.source.where(pick.index)),)


def _prepared(source: _Positions, positions: Sequence[int], workers: int) -> Iterator[_Prepared]:
    loader: DataLoader[Any] = DataLoader(
        source,  # type: ignore[arg-type]
        batch_size=None,
        sampler=positions,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        worker_init_fn=leave_stopping_to_the_run,
    )
    return iter(loader)


@torch.no_grad()
def _look(
    backbone: ClipBackbone, views: Sequence[View | None], cache: FeatureCache, settings: ExportSettings
) -> list[CachedView | None]:
    there = [view for view in views if view is not None]
    if not there:
        return [None] * len(views)
    images = torch.stack([view.image for view in there]).to(backbone.device)
    kind = multiplied_in(bfloat16=settings.bfloat16, float16=settings.float16)
    with torch.autocast(backbone.device.type, kind, enabled=kind is not torch.float32):
        features = backbone.features(images)
    kept = _DTYPES[settings.dtype]
    maps = {stage: features[stage].to(kept).cpu().contiguous() for stage in cache.key.stages}
    _check_finite(maps, settings.dtype)
    kept_views = iter(
        CachedView({stage: m[row] for stage, m in maps.items()}, view.target)
        for row, view in enumerate(there)
    )
    return [None if view is None else next(kept_views) for view in views]


def _check_finite(maps: dict[str, torch.Tensor], dtype: str) -> None:
    """Half precision ends at 65,504, which few backbones reach, but then silently."""
    for stage, values in maps.items():
        if not values.isfinite().all():
            raise InvalidParameter(
                f"The features of {stage} are too large for {dtype}",
                field="dtype",
                expected="bf16, which has the range of float32",
                got=dtype,
            )
