"""What every data set gives: pictures with their truth, in one form, read one sample at a time.

A `Dataset` has a name, a `Vocabulary` and samples by index. A `Sample` tells which picture it is and reads
picture and truth only when asked::

    dataset = coco_dataset("instances_val2017.json", "val2017")
    sample = dataset.sample(0)
    sample.image()          # (H, W, 3) uint8 RGB, upright
    sample.instances()      # boxes, classes, crowd flags, masks on request
    sample.labels()         # (H, W) int32 class per pixel, IGNORE where nothing is judged
    sample.panoptic()       # (H, W) int32 segment ids, 0 where nothing is judged, and the segments

Classes are indices into the vocabulary everywhere; `Dataset.category_ids` maps them to the ids of the data
set's files, for results in its submission format. `Dataset.truths` says which of the three there are.
Nothing is ever downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidDataset, InvalidParameter, Unsupported
from ovperception.images import load_image
from ovperception.rle import RLE
from ovperception.vocabulary import Vocabulary

__all__ = [
    "IGNORE",
    "Dataset",
    "ImageId",
    "Instances",
    "LabelMap",
    "PanopticTruth",
    "Sample",
    "Truth",
    "TruthSegment",
    "missing_pictures",
    "samples",
]

IGNORE = -1
"""Class of a pixel that is not judged, whatever number the data set's files use."""

Truth = Literal["instances", "labels", "panoptic"]
ImageId = int | str
LabelMap = NDArray[np.int32]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Instances:
    """The objects of one picture, N of them, in the order of the file.

    Attributes:
        boxes: (N, 4) float64 xyxy in pixels, as annotated: they may reach beyond the picture.
        classes: (N,) int64 indices into the vocabulary.
        crowd: (N,) bool; a crowd is one region of many objects, never a target.
        areas: (N,) float64 annotated areas in pixels; they sort objects into small, medium and large.
        ids: (N,) int64 annotation ids.
        read_mask: makes the mask of object n; None where the file has boxes only.
        negative: classes known to be absent (LVIS); detections of a class that is neither here nor present
            are not judged.
        not_exhaustive: classes of which some objects are not annotated (LVIS).
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    ids: NDArray[np.int64]
    read_mask: Callable[[int], RLE] | None = None
    negative: tuple[int, ...] = ()
    not_exhaustive: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Number of objects N."""
        return len(self.classes)

    @cached_property
    def masks(self) -> tuple[RLE, ...]:
        """The mask of each object, made of the file's polygons or run lengths when first asked for.

        Raises:
            Unsupported: the file has boxes only.
            InvalidDataset: a mask is broken or of another size than its picture.
        """
        if self.read_mask is None:
            raise Unsupported("These objects have boxes but no masks", field="dataset")
        return tuple(self.read_mask(n) for n in range(len(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthSegment:
    """One segment of a panoptic truth.

    Attributes:
        id: its value in the id map, 1 and up.
        class_id: index into the vocabulary.
        is_crowd: a region of many objects, not judged one by one.
        area: pixels, as the file says.
    """

    id: int
    class_id: int
    is_crowd: bool
    area: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PanopticTruth:
    """Who every pixel belongs to.

    Attributes:
        ids: (H, W) int32 segment ids; 0 is void.
        segments: one for each id but 0.
    """

    ids: NDArray[np.int32]
    segments: tuple[TruthSegment, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One picture of a data set.

    Attributes:
        image_id: as the data set numbers it; the file's stem where it does not.
        file_name: as the data set names it.
        path: of the picture; None where it is drawn, not read.
        size: (height, width) by the annotations; None where only the picture knows.
        asked: the classes this sample is about, where it is about some only (the folds of zero-shot
            segmentation): its labels have these, and for every other pixel the class K, "others".
        read_image: gives the picture where there is no path.
        read_instances: gives the objects, where the data set has any.
        read_labels: gives the class per pixel, where the data set has it.
        read_panoptic: gives the segments, where the data set has any.
    """

    image_id: ImageId
    file_name: str
    path: Path | None = None
    size: tuple[int, int] | None = None
    asked: tuple[int, ...] | None = None
    read_image: Callable[[], NDArray[np.uint8]] | None = None
    read_instances: Callable[[], Instances] | None = None
    read_labels: Callable[[], LabelMap] | None = None
    read_panoptic: Callable[[], PanopticTruth] | None = None

    def image(self) -> NDArray[np.uint8]:
        """The picture, (H, W, 3) uint8 RGB, upright.

        Raises:
            MissingFile: the file is not there.
            InvalidImage: it is no picture, or broken.
            InvalidDataset: it has another size than its annotations.
        """
        if self.read_image is not None:
            return self.read_image()
        if self.path is None:
            raise Unsupported("This sample has no picture", field="dataset", got=self.file_name)
        image = load_image(self.path)
        if self.size is not None and image.shape[:2] != self.size:
            raise InvalidDataset(
                f"{self.path} has another size than its annotations",
                expected=f"(height, width) = {self.size}",
                got=image.shape[:2],
                mend="Check that pictures and annotations are of the same release; a picture that the camera"
                " held sideways (EXIF) may have been annotated lying",
            )
        return image

    def instances(self) -> Instances:
        """The objects.

        Raises:
            Unsupported: this data set has none.
            InvalidDataset: an annotation is broken.
        """
        return self._read(self.read_instances, "instances")

    def labels(self) -> LabelMap:
        """The class of each pixel, (H, W) int32, `IGNORE` where nothing is judged.

        Raises:
            Unsupported: this data set has none.
            MissingFile: the label file is not there.
            InvalidDataset: it is broken, or has labels that no class stands for.
        """
        return self._read(self.read_labels, "labels")

    def panoptic(self) -> PanopticTruth:
        """The segments.

        Raises:
            Unsupported: this data set has none.
            MissingFile: the id map is not there.
            InvalidDataset: it is broken, or does not fit its annotations.
        """
        return self._read(self.read_panoptic, "panoptic")

    def _read(self, reader: Callable[[], T] | None, truth: Truth) -> T:
        if reader is None:
            raise Unsupported(
                f"The data set of {self.file_name} was opened without {truth}",
                field="truth",
                mend="Open the data set, or the form of it, that has them",
            )
        return reader()


@runtime_checkable
class Dataset(Protocol):
    """A data set of one split, opened.

    Attributes:
        name: such as ``coco_2017_val``; goes into reports.
        vocabulary: the classes, in the order of their indices.
        category_ids: the id that the data set's files give to each class, (K,).
        truths: which of instances, labels and panoptic its samples have.
        annotations: the file or folder the truth is in; None where it is drawn.
    """

    @property
    def name(self) -> str:
        """What the data set is called."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes."""
        ...

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The files' id of each class."""
        ...

    @property
    def truths(self) -> frozenset[Truth]:
        """What there is to compare with."""
        ...

    @property
    def annotations(self) -> Path | None:
        """Where the truth is."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def sample(self, index: int) -> Sample:
        """Gives sample `index`, 0 and up, without reading its picture or maps.

        Raises:
            InvalidParameter: there is no such sample.
        """
        ...


def samples(dataset: Dataset, *, first: int = 0, count: int | None = None) -> Iterator[Sample]:
    """The samples in order, `count` of them from `first` on, or to the end."""
    end = len(dataset) if count is None else min(len(dataset), first + count)
    return (dataset.sample(index) for index in range(first, end))


def missing_pictures(dataset: Dataset) -> tuple[Path, ...]:
    """The pictures that are not there, asked of the file system alone: worth knowing before a long run."""
    paths = (sample.path for sample in samples(dataset))
    return tuple(path for path in paths if path is not None and not path.is_file())


def check_index(index: int, count: int) -> int:
    """The index itself.

    Raises:
        InvalidParameter: the data set has no such sample.
    """
    if not 0 <= index < count:
        raise InvalidParameter(
            "There is no such sample", field="index", expected=f"0 to {count - 1}", got=index
        )
    return index
