"""Pictures of a data set with their truth in the classes of a training vocabulary.

Any `ovperception.datasets` data set can be read: objects with boxes and masks (COCO, LVIS), segments (COCO
panoptic) or a class per pixel (label PNGs). What of it cannot be learned from is told as `Trouble`; a picture
that cannot be used at all is an error that names its path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.coco import CocoDataset
from ovperception.datasets.samples import IGNORE, Dataset, Sample, Truth
from ovperception.errors import InvalidDataset, OVPError, Unsupported
from ovperception.rle import RLE
from ovperception.training.augmentations import VOID, LabelledImage, tight_boxes
from ovperception.training.wrong_data import Trouble, WrongData
from ovperception.vocabulary import Vocabulary

__all__ = ["Shapes", "TrainingImages"]

Shapes = Literal["masks", "boxes"]


@dataclass(frozen=True)
class TrainingImages:
    """A data set as a trainer sees it.

    Attributes:
        dataset: where pictures and truth come from.
        truth: which of its truths to learn from; panoptic and labels include stuff.
        vocabulary: the classes that may be learned, found by name or synonym in the data set's; what it does
            not have, such as novel classes, is left out of the truth. None: all of the data set's.
        shapes: "boxes" reads no masks, for heads that look at none; instances only.
    """

    dataset: Dataset
    truth: Truth = "instances"
    vocabulary: Vocabulary | None = None
    shapes: Shapes = "masks"
    _class_of: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.truth not in self.dataset.truths:
            raise Unsupported(
                f"{self.dataset.name} has no {self.truth}",
                field="truth",
                expected=" or ".join(sorted(self.dataset.truths)),
                got=self.truth,
            )
        object.__setattr__(self, "_class_of", _class_table(self.dataset, self.classes))

    @property
    def classes(self) -> Vocabulary:
        """The classes that the ids of the truth index."""
        return self.dataset.vocabulary if self.vocabulary is None else self.vocabulary

    def __len__(self) -> int:
        """Number of pictures, usable or not."""
        return len(self.dataset)

    def where(self, index: int) -> str:
        """What a message calls picture `index`."""
        sample = self.dataset.sample(index)
        return str(sample.path or sample.file_name)

    def classes_in(self, index: int) -> tuple[int, ...]:
        """Classes of picture `index`, by its annotations alone; one more than once if it has more of it.

        Raises:
            Unsupported: The truth is in files of pixels, which would all have to be read.
        """
        if self.truth != "instances":
            raise Unsupported(
                "Only annotations of instances tell classes", field="data.truth", got=self.truth
            )
        found = self.dataset.sample(index).instances()
        classes = self._class_of[found.classes[~found.crowd]]
        return tuple(int(c) for c in classes[classes >= 0])

    def left_out(self) -> WrongData:
        """What the opening of the data left out, and classes and words that have no partner."""
        found = WrongData()
        if isinstance(self.dataset, CocoDataset):
            found.add(self.dataset.problems.counts, self.dataset.problems.examples)
        theirs, ours = self.dataset.vocabulary.names, self.classes.names
        reached = {int(index) for index in self._class_of}
        unlearned = [name for name, index in zip(theirs, self._class_of, strict=True) if index < 0]
        untaught = [name for index, name in enumerate(ours) if index not in reached]
        for kind, names in (
            ("a class of the data that is not in the vocabulary", unlearned),
            ("a word of the vocabulary that is no class of the data", untaught),
        ):
            found.note(Trouble(kind=kind, where=name, harmless=True) for name in names)
        return found

    def digest(self) -> str:
        """SHA-256 (hex) over annotations, names and sizes of the picture files, and the classes."""
        found = hashlib.sha256(f"{self.dataset.name} {self.truth} {self.shapes}".encode())
        found.update(self.classes.content_hash.encode())
        annotations = self.dataset.annotations
        if annotations is not None and annotations.is_file():
            with annotations.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        for index in range(len(self)):
            sample = self.dataset.sample(index)
            there = sample.path is not None and sample.path.is_file()
            size = sample.path.stat().st_size if there and sample.path else -1
            found.update(f"\n{sample.image_id}|{sample.file_name}|{size}".encode())
        return found.hexdigest()

    def read(self, index: int) -> tuple[LabelledImage, tuple[Trouble, ...]]:
        """Picture `index` with its truth, and what of the truth was left out.

        Raises:
            OVPError: The picture cannot be used: missing, corrupt, of another size than its annotations.
        """
        sample = self.dataset.sample(index)
        image = sample.image()
        match self.truth:
            case "instances":
                return self._instances(sample, image)
            case "panoptic":
                return self._panoptic(sample, image), ()
            case "labels":
                return self._labels(sample, image), ()

    def _instances(
        self, sample: Sample, image: NDArray[np.uint8]
    ) -> tuple[LabelledImage, tuple[Trouble, ...]]:
        where, size = str(sample.path or sample.file_name), image.shape[:2]
        found = sample.instances()
        classes = self._class_of[found.classes]
        wanted = np.flatnonzero((classes >= 0) & ~found.crowd)
        sides = np.tile([size[1], size[0]], 2)
        boxes = np.clip(found.boxes, 0, sides).astype(np.float32)
        troubles: list[Trouble] = []
        kept: list[int] = []
        masks: list[NDArray[np.bool_]] = []
        if self.shapes == "masks" and found.read_mask is None and len(wanted):
            raise InvalidDataset(
                f"{where} has boxes but no masks",
                field="data",
                mend='Say shapes="boxes" if the head learns from boxes alone',
            )
        for n in wanted:
            trouble = _box_trouble(found.boxes[n], boxes[n], f"{where}, annotation {found.ids[n]}")
            if trouble is not None:
                troubles.append(trouble)
                if not trouble.harmless:
                    continue
            if self.shapes == "masks" and found.read_mask is not None:
                mask, fault = _mask(found.read_mask, int(n), size, f"{where}, annotation {found.ids[n]}")
                if fault is not None:
                    troubles.append(fault)
                    continue
                masks.append(mask)
            kept.append(int(n))
        stack = np.stack(masks) if masks else np.zeros((0, *size), bool)
        labelled = LabelledImage(
            image=image,
            class_ids=classes[kept],
            boxes=tight_boxes(stack) if self.shapes == "masks" else boxes[kept],
            masks=stack if self.shapes == "masks" else None,
        )
        return labelled, tuple(troubles)

    def _panoptic(self, sample: Sample, image: NDArray[np.uint8]) -> LabelledImage:
        truth = sample.panoptic()
        _check_size(truth.ids, image, sample)
        segments = [s for s in truth.segments if not s.is_crowd and self._class_of[s.class_id] >= 0]
        classes = np.array([self._class_of[s.class_id] for s in segments], np.int64)
        return _of_map(image, truth.ids, [s.id for s in segments], classes)

    def _labels(self, sample: Sample, image: NDArray[np.uint8]) -> LabelledImage:
        labels = sample.labels()
        _check_size(labels, image, sample)
        present = np.unique(labels)
        known = [int(c) for c in present if c != IGNORE and self._class_of[c] >= 0]
        return _of_map(image, labels + 1, [c + 1 for c in known], self._class_of[known])


def _class_table(dataset: Dataset, known: Vocabulary) -> NDArray[np.int64]:
    """(K,) index in `known` of each class of the data set, -1 for those it does not have."""
    words = {_folded(t): i for i, c in reversed(list(enumerate(known.classes))) for t in c.synonyms}
    words |= {_folded(c.name): i for i, c in enumerate(known.classes)}
    table = np.array([words.get(_folded(name), -1) for name in dataset.vocabulary.names], np.int64)
    if not (table >= 0).any():
        raise InvalidDataset(
            f"No class of {dataset.name} is in the training vocabulary",
            field="vocabulary",
            expected=f"some of {', '.join(dataset.vocabulary.names)}",
            got=", ".join(known.names),
        )
    return table


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _of_map(
    image: NDArray[np.uint8], ids: NDArray[np.int32], wanted: Sequence[int], classes: NDArray[np.int64]
) -> LabelledImage:
    """Only wanted segments stay in the map, and only those that have pixels in it stay wanted."""
    present = np.isin(wanted, ids) if len(wanted) else np.zeros(0, bool)
    segments = np.asarray(wanted, np.int32)[present]
    panoptic = np.where(np.isin(ids, segments), ids, VOID).astype(np.int32)
    return LabelledImage(
        image=image,
        class_ids=classes[present],
        boxes=tight_boxes(panoptic == segments[:, None, None]),
        panoptic=panoptic,
        segment_ids=segments,
    )


def _check_size(truth: NDArray[np.int32], image: NDArray[np.uint8], sample: Sample) -> None:
    if truth.shape != image.shape[:2]:
        raise InvalidDataset(
            f"The truth of {sample.path or sample.file_name} is of another size",
            field="data",
            expected=f"(height, width) = {image.shape[:2]}",
            got=truth.shape,
        )


def _box_trouble(annotated: NDArray[np.float64], cut: NDArray[np.float32], where: str) -> Trouble | None:
    """Nothing left within the picture: the object is lost. A part of it: the rest is used."""
    if min(cut[2] - cut[0], cut[3] - cut[1]) <= 0:
        return Trouble(kind="a box without pixels in its picture", where=where, message=f"box {annotated}")
    # COCO rounds its boxes to hundredths.
    if np.abs(annotated - cut).max() > 0.5:
        return Trouble(kind="a box that reaches beyond its picture", where=where, harmless=True)
    return None


def _mask(
    read: Callable[[int], RLE], number: int, size: tuple[int, ...], where: str
) -> tuple[NDArray[np.bool_], Trouble | None]:
    nothing = np.zeros(size, bool)
    try:
        mask = read(number).decode().astype(bool)
    except OVPError as error:
        return nothing, Trouble(kind="a mask that cannot be read", where=where, message=error.message)
    if mask.shape != size:
        message = f"mask of {mask.shape}, picture of {size}"
        return nothing, Trouble(kind="a mask of another size", where=where, message=message)
    if not mask.any():
        return nothing, Trouble(kind="an empty mask", where=where)
    return mask, None
