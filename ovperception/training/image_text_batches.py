"""Batches of captioned pictures from tar shards, which can be stopped and taken up batch for batch."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ovperception.errors import InvalidCheckpoint, OVPError
from ovperception.preprocess import Preprocessing
from ovperception.training.augmentations import Augmentation, LabelledImage
from ovperception.training.image_text import CaptionedImage, ImageTextTars, Place
from ovperception.training.pinned import pinned
from ovperception.training.workers import leave_stopping_to_the_run
from ovperception.training.wrong_data import Trouble, WrongData

__all__ = ["CaptionedBatch", "ImageTextBatches", "ImageTextState"]


@dataclass(frozen=True, kw_only=True)
class CaptionedBatch:
    """What one step learns from.

    Attributes:
        images: (B, 3, H, W) float32, normalised, padded at the right and bottom.
        captions: B texts.
        keys: B names, for people.
        troubles: what was left out on the way.
        stream: which of the workers' streams it is from.
        after: where that stream goes on.
    """

    images: Tensor
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    troubles: tuple[Trouble, ...]
    stream: int
    after: Place

    def pin_memory(self) -> CaptionedBatch:
        """As the loader asks for it, in a thread of its own."""
        held: CaptionedBatch = pinned(self)
        return held


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTextState:
    """How far a process has come: for its checkpoint.

    Attributes:
        batches: given so far; the workers take turns.
        places: where each worker's stream goes on.
    """

    batches: int = 0
    places: Mapping[int, Place] = field(default_factory=dict)

    def after(self, batch: CaptionedBatch) -> ImageTextState:
        """The state once a batch was learned from."""
        return ImageTextState(batches=self.batches + 1, places={**self.places, batch.stream: batch.after})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "batches": self.batches,
            "places": {str(n): dataclasses.asdict(p) for n, p in self.places.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageTextState:
        """Read what `to_dict` wrote.

        Raises:
            InvalidCheckpoint: it is something else.
        """
        try:
            places = {int(n): Place(**p) for n, p in values["places"].items()}
            return cls(batches=int(values["batches"]), places=places)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidCheckpoint("Not the place of an image-text stream", got=error) from error


@dataclass(frozen=True, kw_only=True)
class ImageTextBatches:
    """The batches of one process.

    Attributes:
        shards: all tar files, the same list in every process.
        augmentation: how pictures are seen.
        preprocessing: as the finished model will use it; its resizing is left to the augmentation.
        batch_size: pictures of a batch.
        seed: of order and views.
        block: samples that a worker reads and mixes at a time.
        rank: of this process.
        ranks: processes.
        workers: that read; 0 reads in this process.
        for_gpu: whether pictures are put where a GPU copies them from without waiting.
    """

    shards: Sequence[Any]
    augmentation: Augmentation
    preprocessing: Preprocessing
    batch_size: int
    seed: int = 0
    block: int = 1000
    rank: int = 0
    ranks: int = 1
    workers: int = 0
    for_gpu: bool = False

    def batches(
        self, state: ImageTextState | None = None, *, wrong: WrongData | None = None
    ) -> Iterator[CaptionedBatch]:
        """The batches from a state on, without end.

        Raises:
            InvalidCheckpoint: the state is of another number of workers.
            InvalidDataset: `wrong` says that too much was left out.
        """
        state = ImageTextState() if state is None else state
        streams = max(self.workers, 1)
        if any(n >= streams for n in state.places) or len(state.places) < min(state.batches, streams):
            raise InvalidCheckpoint(
                "A stream can only be taken up with as many workers as before",
                field="workers",
                expected=f"{max(state.places, default=0) + 1} or so",
                got=self.workers,
            )
        loader: DataLoader[Any] = DataLoader(
            _Stream(self, state),
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=2 if self.workers else None,
            worker_init_fn=leave_stopping_to_the_run,
            pin_memory=self.for_gpu,
            # Of its own, so that making a loader draws nothing from the generator that the losses draw from.
            generator=torch.Generator().manual_seed(0),
        )
        for batch in loader:
            if isinstance(batch, OVPError):
                raise batch
            if wrong is not None:
                wrong.note(batch.troubles)
            yield batch

    def of_stream(self, stream: int, place: Place | None) -> Iterator[CaptionedBatch]:
        """The batches of one worker."""
        streams = max(self.workers, 1)
        tars = ImageTextTars(
            shards=self.shards,
            seed=self.seed,
            block=self.block,
            consumer=self.rank * streams + stream,
            consumers=self.ranks * streams,
        )
        waiting: list[CaptionedImage] = []
        for sample in tars.samples(place):
            waiting.append(sample)
            if len(waiting) == self.batch_size:
                yield self._collate(waiting, stream)
                waiting = []

    def _collate(self, samples: Sequence[CaptionedImage], stream: int) -> CaptionedBatch:
        images = [self._image(sample) for sample in samples]
        height, width = (max(image.shape[k] for image in images) for k in (1, 2))
        return CaptionedBatch(
            images=torch.stack([F.pad(i, (0, width - i.shape[2], 0, height - i.shape[1])) for i in images]),
            captions=tuple(sample.caption for sample in samples),
            keys=tuple(sample.key for sample in samples),
            troubles=tuple(t for sample in samples for t in sample.troubles),
            stream=stream,
            after=samples[-1].after,
        )

    def _image(self, sample: CaptionedImage) -> Tensor:
        bare = LabelledImage(
            image=sample.image, class_ids=np.zeros(0, np.int64), boxes=np.zeros((0, 4), np.float32)
        )
        index = zlib.crc32(sample.key.encode())
        seen = self.augmentation.view(bare, seed=self.seed, index=index, epoch=sample.after.epoch)
        plain = dataclasses.replace(self.preprocessing, shortest_edge=None, longest_edge=None)
        return plain.apply(seen.image)[0]


class _Stream(IterableDataset[CaptionedBatch | OVPError]):
    """One worker's part; a loader takes a batch of each worker in turn, so the turn is part of the state.

    An error ends it and is given as it is: torch would make it anew from its class and a trace of the stack.
    """

    def __init__(self, batches: ImageTextBatches, state: ImageTextState) -> None:
        self.batches, self.state = batches, state

    def __iter__(self) -> Iterator[CaptionedBatch | OVPError]:
        info = get_worker_info()
        worker, streams = (0, 1) if info is None else (info.id, info.num_workers)
        stream = (worker + self.state.batches) % streams
        try:
            yield from self.batches.of_stream(stream, self.state.places.get(stream))
        except OVPError as error:
            yield error
