"""Batches of augmented pictures and their targets, each a function of its number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovperception.errors import InvalidDataset, OVPError
from ovperception.preprocess import Preprocessing
from ovperception.training.augmentations import Augmentation, LabelledImage
from ovperception.training.coco_targets import TrainingImages
from ovperception.training.epochs import Order, Pick
from ovperception.training.targets import Targets
from ovperception.training.wrong_data import Trouble

__all__ = ["LabelledBatch", "LabelledBatches", "LabelledViews", "View", "trouble_of"]

_TRIES = 100


@dataclass(frozen=True)
class View:
    """One augmented picture as the network takes it.

    Attributes:
        image: (3, H, W) float32, normalised and padded.
        target: its truth, in pixels of `image`.
        pick: which picture it is, and the seed of its augmentation.
    """

    image: Tensor
    target: Targets
    pick: Pick


@dataclass(frozen=True)
class LabelledBatch:
    """What a network is shown at once.

    Attributes:
        images: (B, 3, H, W) float32.
        targets: B truths.
        picks: which pictures these are.
        troubles: what was left out on the way.
    """

    images: Tensor
    targets: list[Targets]
    picks: tuple[Pick, ...]
    troubles: tuple[Trouble, ...]


@dataclass(frozen=True, kw_only=True)
class LabelledViews:
    """Augmented pictures by (index, epoch), whoever asks.

    Attributes:
        source: the pictures.
        augmentation: how they are seen.
        preprocessing: as the finished model will use it; its resizing is left to the augmentation.
        seed: of the augmentation.
        views: different views of a picture: epoch e repeats view e modulo this. None: never the same again.
    """

    source: TrainingImages
    augmentation: Augmentation
    preprocessing: Preprocessing
    seed: int = 0
    views: int | None = None

    @property
    def frame(self) -> tuple[int, int] | None:
        """(height, width) of every view; None where they differ."""
        if self.augmentation.crop is None:
            return None
        height, width = (-(-s // self.preprocessing.multiple) for s in self.augmentation.crop)
        return height * self.preprocessing.multiple, width * self.preprocessing.multiple

    def number(self, epoch: int) -> int:
        """Which view of its pictures an epoch sees."""
        return epoch if self.views is None else epoch % self.views

    def view(self, pick: Pick) -> tuple[View, tuple[Trouble, ...]]:
        """One view.

        Raises:
            OVPError: The picture cannot be used, or has nothing to learn from (`InvalidDataset`).
        """
        sample, troubles = self.source.read(pick.index)
        if not len(sample.class_ids):
            raise _Empty("It has nothing of the vocabulary in it", got="; ".join(t.kind for t in troubles))
        seen = self.augmentation.view(sample, seed=self.seed, index=pick.index, epoch=self.number(pick.epoch))
        return View(*self._to_network(seen), pick), troubles

    def _to_network(self, seen: LabelledImage) -> tuple[Tensor, Targets]:
        plain = dataclasses.replace(self.preprocessing, shortest_edge=None, longest_edge=None)
        image, _ = plain.apply(seen.image)
        masks = seen.mask_stack()
        boxes = torch.from_numpy(seen.boxes)
        filled = _filled(seen.boxes, seen.size) if masks is None else masks
        target = Targets(torch.from_numpy(seen.class_ids), torch.from_numpy(filled), boxes)
        return _pad(image, target, self.frame or (image.shape[1], image.shape[2]))

    def first_usable(self, pick: Pick) -> tuple[View, tuple[Trouble, ...]]:
        """The view of a picture or, where it cannot be used, of the next one in the data set that can.

        Raises:
            InvalidDataset: None of many can be used.
        """
        troubles: list[Trouble] = []
        for number in range(min(_TRIES, len(self.source))):
            tried = dataclasses.replace(pick, index=(pick.index + number) % len(self.source))
            try:
                view, found = self.view(tried)
            except OVPError as error:
                troubles.append(trouble_of(error, self.source.where(tried.index)))
                continue
            return view, (*troubles, *found)
        raise InvalidDataset(
            f"{len(troubles)} pictures in a row cannot be used, the first being {troubles[0].where}",
            field="data",
            got=troubles[0].message or troubles[0].kind,
        )


class _Empty(InvalidDataset):
    """A picture without any object that may be learned."""


def trouble_of(error: OVPError, where: str) -> Trouble:
    """Why a picture is left out."""
    if isinstance(error, _Empty):
        return Trouble(kind="a picture with nothing to learn", where=where, harmless=True)
    kinds = {"MissingFile": "a missing file", "InvalidImage": "a picture that cannot be decoded"}
    kind = kinds.get(type(error).__name__, "a picture that does not fit its annotations")
    return Trouble(kind=kind, where=where, message=error.message)


@dataclass(frozen=True, kw_only=True)
class LabelledBatches:
    """A source of batches by number.

    Attributes:
        views: the augmented pictures.
        order: which of them a batch sees.
    """

    views: LabelledViews
    order: Order

    def __getitem__(self, number: int) -> LabelledBatch:
        """The batch; what cannot be used is replaced by the next picture that can."""
        found = [self.views.first_usable(pick) for pick in self.order.picks(number)]
        return _collate([v for v, _ in found], tuple(t for _, ts in found for t in ts))

    def names(self, number: int) -> list[str]:
        """Paths of the batch's pictures."""
        return [self.views.source.where(pick.index) for pick in self.order.picks(number)]


def _collate(views: Sequence[View], troubles: tuple[Trouble, ...]) -> LabelledBatch:
    height, width = (max(v.image.shape[k] for v in views) for k in (1, 2))
    padded = [_pad(v.image, v.target, (height, width)) for v in views]
    return LabelledBatch(
        images=torch.stack([image for image, _ in padded]),
        targets=[target for _, target in padded],
        picks=tuple(v.pick for v in views),
        troubles=troubles,
    )


def _pad(image: Tensor, target: Targets, size: tuple[int, int]) -> tuple[Tensor, Targets]:
    """Zeros at the right and bottom, which is the mean colour, as in the finished model."""
    right, bottom = size[1] - image.shape[2], size[0] - image.shape[1]
    by_mask = size[1] - target.masks.shape[2], size[0] - target.masks.shape[1]
    masks = F.pad(target.masks, (0, by_mask[0], 0, by_mask[1]))
    return F.pad(image, (0, right, 0, bottom)), dataclasses.replace(target, masks=masks)


def _filled(boxes: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """(N, H, W) bool: all of each box."""
    rows, columns = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    across = (columns >= boxes[:, :1]) & (columns < boxes[:, 2:3])
    down = (rows >= boxes[:, 1:2]) & (rows < boxes[:, 3:])
    return np.asarray(down[:, :, None] & across[:, None, :])
