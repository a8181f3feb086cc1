"""Batches of kept features, and one way to the features of any batch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ovperception.backbones.base import Features
from ovperception.training.epochs import Order, Pick
from ovperception.training.feature_cache.cache import FeatureCache
from ovperception.training.targets import Targets
from ovperception.training.wrong_data import Trouble

if TYPE_CHECKING:
    from ovperception.backbones.clip import ClipBackbone

__all__ = ["CachedBatch", "CachedBatches", "features_of"]


@dataclass(frozen=True)
class CachedBatch:
    """What one step learns from.

    Attributes:
        features: maps of B views, in the type they are kept in, without pixels.
        targets: B truths.
        picks: which pictures these are.
        troubles: none; they were told when the features were exported.
    """

    features: Features
    targets: list[Targets]
    picks: tuple[Pick, ...]
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True)
class CachedBatches:
    """A source of batches by number: the same pictures, in the same order, as the live source has.

    Attributes:
        cache: where the features are.
        order: which of them a batch sees.
        stages: names of the maps to read; None: all that are kept.
    """

    cache: FeatureCache
    order: Order
    stages: tuple[str, ...] | None = None

    def __getitem__(self, number: int) -> CachedBatch:
        """The batch."""
        stages = self.cache.key.stages if self.stages is None else self.stages
        found = [self.cache.view(pick, stages) for pick in self.order.picks(number)]
        maps = {stage: torch.stack([view.maps[stage] for view, _ in found]) for stage in stages}
        return CachedBatch(
            features=Features(maps=maps, image_size=self.cache.key.frame),
            targets=[view.target for view, _ in found],
            picks=tuple(pick for _, pick in found),
        )

    def names(self, number: int) -> list[str]:
        """Places of the batch's pictures in the data set."""
        return [f"{self.cache.folder}, picture {pick.index}" for pick in self.order.picks(number)]


@torch.no_grad()
def features_of(batch: Any, backbone: ClipBackbone) -> Features:
    """The features of a batch, live or kept, where the backbone is and in its type.

    Args:
        batch: with `features` or `images`; of a pair, the first is the images.
        backbone: looks at the images where there are no features; under autocast if the caller wants that.
    """
    kept: Features | None = getattr(batch, "features", None)
    if kept is None:
        images = batch[0] if isinstance(batch, tuple) else batch.images
        return backbone.features(images.to(backbone.device, non_blocking=True))
    maps = {k: v.to(backbone.device, non_blocking=True).to(backbone.dtype) for k, v in kept.maps.items()}
    return dataclasses.replace(kept, maps=maps)
