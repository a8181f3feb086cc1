"""Pictures with a label map each: any folder of images and label PNGs, and all data sets that are such.

Label files hold whatever numbers their makers chose; a `LabelTable` says which class each of them is, and
which mean that the pixel is not judged. Any other number is an `InvalidDataset`, never a silent class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.categories import Classes
from ovperception.datasets.folders import LOCAL, Origin, require_file, require_folder
from ovperception.datasets.label_files import read_labels
from ovperception.datasets.panoptic_files import things_of
from ovperception.datasets.samples import (
    IGNORE,
    Instances,
    LabelMap,
    PanopticTruth,
    Sample,
    Truth,
    check_index,
)
from ovperception.errors import InvalidDataset, MissingFile
from ovperception.vocabulary import Vocabulary

__all__ = ["LabelTable", "LabelledImages", "Pair", "folder_pairs", "label_folder", "listed_pairs"]

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_LABELS = (".png", ".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """What the numbers of label files mean.

    Attributes:
        classes: number in the files -> class index.
        ignore: numbers of pixels that are not judged.
    """

    classes: Mapping[int, int]
    ignore: frozenset[int] = frozenset()

    @classmethod
    def of(cls, numbers: Sequence[int], *ignore: int) -> LabelTable:
        """The table in which ``numbers[i]`` means class i."""
        return cls(classes={number: i for i, number in enumerate(numbers)}, ignore=frozenset(ignore))

    def apply(self, raw: NDArray[Any], where: object) -> LabelMap:
        """Turns numbers into class indices and `IGNORE`.

        Args:
            raw: (H, W) of any integer type.
            where: how messages call the file.

        Raises:
            InvalidDataset: a number that the table does not have.
        """
        least, most = int(raw.min(initial=0)), int(raw.max(initial=0))
        if least < 0 or most > 65535:
            raise self._unknown([least if least < 0 else most], where)
        lookup = np.full(65536, IGNORE - 1, np.int32)
        lookup[[n for n in self.ignore if n < 65536]] = IGNORE
        lookup[list(self.classes)] = list(self.classes.values())
        labels: LabelMap = lookup[raw]
        if (labels < IGNORE).any():
            raise self._unknown(np.unique(raw[labels < IGNORE]).tolist(), where)
        return labels

    def _unknown(self, numbers: Sequence[int], where: object) -> InvalidDataset:
        known = sorted((*self.classes, *self.ignore))
        return InvalidDataset(
            f"{where} has labels that stand for no class",
            field="labels",
            expected=f"{len(known)} numbers from {known[0]} to {known[-1]}",
            got=", ".join(map(str, numbers)),
            mend="Check that the maps are of the form that this reader is for",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A picture and its labels."""

    image_id: str
    image: Path
    labels: Path


class LabelledImages:
    """Pictures with label maps, opened.

    Args:
        name: what to call it.
        classes: the classes; their ids are those of submissions.
        table: what the label files' numbers mean.
        pairs: at least one.
        annotations: the folder of the labels.
        read_segments: makes the panoptic truth of a picture, where there is one; of its things the instances.
    """

    def __init__(
        self,
        *,
        name: str,
        classes: Classes,
        table: LabelTable,
        pairs: Iterable[Pair],
        annotations: Path,
        read_segments: Callable[[Pair], PanopticTruth] | None = None,
    ) -> None:
        self.name = name
        self.annotations: Path | None = annotations
        self._classes = classes
        self._table = table
        self._pairs = tuple(pairs)
        self._read_segments = read_segments
        if not self._pairs:
            raise InvalidDataset(f"{annotations} has no labels for any picture", field="root")
        require_file(self._pairs[0].image)
        require_file(self._pairs[0].labels)

    @property
    def truths(self) -> frozenset[Truth]:
        """Labels, and whatever segments give."""
        return frozenset(("labels",)) if self._read_segments is None else frozenset(get_args(Truth))

    @property
    def table(self) -> LabelTable:
        """What the label files' numbers mean."""
        return self._table

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes."""
        return self._classes.vocabulary

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The data set's id of each class."""
        return self._classes.category_ids

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._pairs)

    def sample(self, index: int) -> Sample:
        """Picture `index`, in the order of the list or of the file names."""
        pair = self._pairs[check_index(index, len(self))]
        return Sample(
            image_id=pair.image_id,
            file_name=pair.image.name,
            path=pair.image,
            read_labels=partial(self._labels, pair.labels),
            read_panoptic=None if self._read_segments is None else partial(self._read_segments, pair),
            read_instances=None if self._read_segments is None else partial(self._instances, pair),
        )

    def _labels(self, path: Path) -> LabelMap:
        return self._table.apply(read_labels(path), path)

    def _instances(self, pair: Pair) -> Instances:
        assert self._read_segments is not None
        return things_of(self._read_segments(pair), self.vocabulary)


def folder_pairs(
    images: Path,
    labels: Path,
    *,
    image_suffix: str | None = None,
    label_suffix: str | None = None,
    origin: Origin = LOCAL,
) -> tuple[Pair, ...]:
    """Pairs the pictures of a folder with label files of the same stem, sub-folders included.

    Args:
        images: folder of pictures.
        labels: folder of labels, in the same sub-folders.
        image_suffix: ending that pictures have behind the stem, such as ``_leftImg8bit.png``; None for any
            ``.jpg``, ``.png`` or ``.webp``.
        label_suffix: ending of the labels, such as ``_gtFine_labelIds.png``; None for ``.png`` or ``.tif``.
        origin: where the data set is from.

    Raises:
        MissingFile: a folder is missing, or the labels of a picture.
    """
    require_folder(images, origin)
    require_folder(labels, origin)
    known = _stems(labels, (label_suffix,) if label_suffix else _LABELS)
    pictures = _stems(images, (image_suffix,) if image_suffix else _PICTURES)
    without = sorted(pictures.keys() - known.keys())
    if without or not pictures:
        ending = label_suffix or " or ".join(_LABELS)
        raise MissingFile(
            f"{len(without)} pictures of {images} have no labels"
            if pictures
            else f"{images} has no pictures",
            field="root",
            expected=f"{labels}/{without[0]}{ending}"
            if without
            else f"files ending in {', '.join(_PICTURES)}",
            mend=origin.mend if origin is not LOCAL else "",
        )
    return tuple(Pair(image_id=s, image=pictures[s], labels=known[s]) for s in sorted(pictures))


def _stems(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        ending = next((e for e in endings if path.name.lower().endswith(e.lower())), None)
        if ending is not None:
            found.setdefault(path.relative_to(folder).as_posix()[: -len(ending)], path)
    return found


def listed_pairs(
    names: Path, images: Path, labels: Path, *, image_suffix: str, label_suffix: str, origin: Origin = LOCAL
) -> tuple[Pair, ...]:
    """Pairs the pictures that a text file names, one a line, as PASCAL's ``ImageSets`` do.

    Raises:
        MissingFile: the list or a folder is missing.
    """
    require_file(names, origin)
    require_folder(images, origin)
    require_folder(labels, origin)
    stems = names.read_text(encoding="utf-8").split()
    return tuple(
        Pair(image_id=s, image=images / f"{s}{image_suffix}", labels=labels / f"{s}{label_suffix}")
        for s in stems
    )


def label_folder(
    images: Path | str,
    labels: Path | str,
    words: Vocabulary | Path | str,
    *,
    name: str = "",
    ignore: Sequence[int] = (255,),
    first: int = 0,
    image_suffix: str | None = None,
    label_suffix: str | None = None,
) -> LabelledImages:
    """Any folder of pictures and folder of label maps.

    Args:
        images: pictures, sub-folders included.
        labels: PNG or TIFF label maps of the same stems.
        words: a vocabulary, or a file of one; see `Vocabulary.from_file`.
        name: what to call it; the name of the images' folder if not given.
        ignore: numbers of pixels that are not judged.
        first: number that stands for the first class; 1 where 0 is something else, which `ignore` then
            should name.
        image_suffix: see `folder_pairs`.
        label_suffix: see `folder_pairs`.

    Raises:
        MissingFile: a folder, the class list or the labels of a picture are missing.
        InvalidVocabulary: the class list is broken.
    """
    images, labels = Path(images), Path(labels)
    vocabulary = words if isinstance(words, Vocabulary) else Vocabulary.from_file(words)
    numbers = tuple(range(first, first + len(vocabulary)))
    return LabelledImages(
        name=name or images.name,
        classes=Classes(vocabulary=vocabulary, category_ids=numbers),
        table=LabelTable(
            classes=dict(zip(numbers, range(len(numbers)), strict=True)), ignore=frozenset(ignore)
        ),
        pairs=folder_pairs(images, labels, image_suffix=image_suffix, label_suffix=label_suffix),
        annotations=labels,
    )
