"""COCO-format files: any ``instances.json`` beside a folder of pictures.

Categories may come in any order and with any ids; masks as polygons, compressed or plain run lengths; crowds
are kept and marked. LVIS files are COCO files with two more lists a picture, read here as well. Everything
is checked when the file is opened, except masks, which are checked when they are made.

With ``on_problem="skip"`` entries that cannot be used are left out and counted in `CocoDataset.problems`;
by default the first one is an `InvalidDataset`. Noted in either case, and used as they are: annotation id 0
(pycocotools takes it for "no match" and loses a true positive), boxes that reach beyond the picture, and
objects without a mask in a file of masks, which is an error only to whoever asks for their masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.categories import Classes, OtherClasses, classes_of
from ovperception.datasets.folders import LOCAL, Origin, read_json, require_folder, rows
from ovperception.datasets.polygons import has_mask_form, mask_of
from ovperception.datasets.problems import OnProblem, Problems
from ovperception.datasets.samples import ImageId, Instances, Sample, Truth, check_index
from ovperception.errors import InvalidDataset
from ovperception.rle import RLE
from ovperception.vocabulary import Vocabulary

__all__ = ["CocoDataset", "KeepImages", "coco_dataset"]

KeepImages = Literal["all", "with_objects"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """A row of ``images``."""

    id: ImageId
    file_name: str
    size: tuple[int, int]
    negative: tuple[int, ...] = ()
    not_exhaustive: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Columns:
    """All annotations, sorted by picture; those of picture i lie from ``starts[i]`` to ``ends[i]``."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    ids: NDArray[np.int64]
    segmentations: list[Any] | None


class CocoDataset:
    """A COCO-format file, opened; made by `coco_dataset`.

    Attributes:
        name: as given.
        annotations: the file.
        images: the folder.
        problems: what was left out or found odd.
    """

    truths: frozenset[Truth] = frozenset(("instances",))

    def __init__(
        self,
        *,
        name: str,
        annotations: Path,
        images: Path,
        classes: Classes,
        pictures: tuple[_Picture, ...],
        columns: _Columns,
        problems: Problems,
    ) -> None:
        self.name = name
        self.annotations = annotations
        self.images = images
        self.problems = problems
        self._classes = classes
        self._pictures = pictures
        self._columns = columns

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes."""
        return self._classes.vocabulary

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The file's id of each class."""
        return self._classes.category_ids

    @property
    def image_ids(self) -> tuple[ImageId, ...]:
        """The file's id of each picture, in the order of the samples."""
        return tuple(picture.id for picture in self._pictures)

    @property
    def has_masks(self) -> bool:
        """Whether the objects have masks; by the file's first annotation."""
        return self._columns.segmentations is not None

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._pictures)

    def sample(self, index: int) -> Sample:
        """Picture `index` in the order of the file."""
        picture = self._pictures[check_index(index, len(self))]
        return Sample(
            image_id=picture.id,
            file_name=picture.file_name,
            path=self.images / picture.file_name,
            size=picture.size,
            read_instances=partial(self._instances, index),
        )

    def _instances(self, index: int) -> Instances:
        columns, picture = self._columns, self._pictures[index]
        first, last = int(columns.starts[index]), int(columns.ends[index])
        part = slice(first, last)
        return Instances(
            boxes=columns.boxes[part],
            classes=columns.classes[part],
            crowd=columns.crowd[part],
            areas=columns.areas[part],
            ids=columns.ids[part],
            read_mask=partial(self._mask, first, picture) if columns.segmentations is not None else None,
            negative=picture.negative,
            not_exhaustive=picture.not_exhaustive,
        )

    def _mask(self, first: int, picture: _Picture, number: int) -> RLE:
        columns = self._columns
        assert columns.segmentations is not None
        where = (
            f"annotation {columns.ids[first + number]} of image {picture.id} ({picture.file_name}) "
            f"of {self.annotations}"
        )
        return mask_of(columns.segmentations[first + number], picture.size, where=where)


def coco_dataset(
    annotations: Path | str,
    images: Path | str,
    *,
    name: str = "",
    known: Classes | Vocabulary | None = None,
    others: OtherClasses = "refuse",
    keep: KeepImages = "all",
    folder_of_images: str = "",
    by_address: bool = False,
    on_problem: OnProblem = "stop",
    origin: Origin = LOCAL,
) -> CocoDataset:
    """Opens a COCO-format file and a folder of pictures.

    Args:
        annotations: the JSON file.
        images: the folder that its ``file_name`` fields count from.
        name: what to call it; the file's stem if not given.
        known: the classes to read it with, see `classes_of`; None takes the file's own.
        others: what to do with categories that `known` does not have.
        keep: all pictures, or those with an object of a known class only (OV-COCO).
        folder_of_images: keep only pictures whose file name begins so, such as ``val2017/``.
        by_address: name pictures by the end of their ``coco_url``, as LVIS does, even if they have a name.
        on_problem: see the module.
        origin: where to get it, for messages.

    Raises:
        MissingFile: file or folder are not there.
        InvalidDataset: the file is broken, or does not fit itself or `known`.
    """
    path, folder = Path(annotations), Path(images)
    data = read_json(path, origin)
    require_folder(folder, origin)
    problems = Problems(path, on_problem)
    classes = classes_of(rows(data, "categories", path), path, known=known, others=others)
    pictures = _pictures(rows(data, "images", path), classes, problems, by_address)
    if not pictures:
        raise InvalidDataset(f"{path} has no images", field="images", expected="one or more")
    columns = _columns(rows(data, "annotations", path), data["categories"], classes, pictures, problems)
    pictures, columns = _part(pictures, columns, keep, folder_of_images)
    if not pictures:
        raise InvalidDataset(
            f"{path} has no images of the part asked for",
            field="images",
            expected=f"file names that begin with {folder_of_images!r}" if folder_of_images else "objects",
        )
    return CocoDataset(
        name=name or path.stem,
        annotations=path,
        images=folder,
        classes=classes,
        pictures=tuple(pictures),
        columns=columns,
        problems=problems,
    )


def _pictures(
    images: Sequence[Mapping[str, Any]], classes: Classes, problems: Problems, by_address: bool
) -> list[_Picture]:
    pictures, seen = [], set[ImageId]()
    index_of = classes.index
    for index, row in enumerate(images):
        where = f"images[{index}]"
        number, size = row.get("id"), (row.get("height"), row.get("width"))
        if not isinstance(number, int | str):  # ADE20K's instances are numbered by file name
            problems.fault("an image without an id", where, expected="a whole number or text", got=number)
            continue
        if number in seen:
            problems.fault("an image id that is there twice", where, expected="every id once", got=number)
            continue
        file_name = _file_name(row, by_address)
        if file_name is None or not all(isinstance(side, int) and side > 0 for side in size):
            problems.fault(
                "an image without file name or size",
                where,
                expected='"file_name", "height" and "width"',
                got={key: row.get(key) for key in ("file_name", "height", "width")},
            )
            continue
        seen.add(number)
        height, width = size
        pictures.append(
            _Picture(
                id=number,
                file_name=file_name,
                size=(int(height or 0), int(width or 0)),
                negative=_known(row.get("neg_category_ids"), index_of),
                not_exhaustive=_known(row.get("not_exhaustive_category_ids"), index_of),
            )
        )
    return pictures


def _file_name(row: Mapping[str, Any], by_address: bool) -> str | None:
    """LVIS names its pictures by their address at COCO: the last two parts are folder and file."""
    name, address = row.get("file_name"), row.get("coco_url")
    has_address = isinstance(address, str) and "/" in address
    if isinstance(name, str) and name and not (by_address and has_address):
        return name
    return "/".join(address.split("/")[-2:]) if isinstance(address, str) and has_address else None


def _known(ids: object, index_of: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(index_of[i] for i in ids if i in index_of) if isinstance(ids, list) else ()


def _columns(
    annotations: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
    classes: Classes,
    pictures: Sequence[_Picture],
    problems: Problems,
) -> _Columns:
    row_of: dict[ImageId | None, int] = {picture.id: i for i, picture in enumerate(pictures)}
    class_of: dict[ImageId | None, int] = {i: index for i, index in classes.index.items()}
    dropped: set[object] = {row["id"] for row in categories} - class_of.keys()
    kept: list[Mapping[str, Any]] = []
    owners: list[int] = []
    seen = set[int]()
    for index, row in enumerate(annotations):
        if _key(row, "category_id") in dropped:
            continue
        if _fits(row, f"annotations[{index}]", row_of, class_of, seen, problems):
            kept.append(row)
            owners.append(row_of[row["image_id"]])
    order = np.argsort(np.asarray(owners, dtype=np.int64), kind="stable")
    kept = [kept[i] for i in order]
    boxes = np.array([row["bbox"] for row in kept], dtype=np.float64).reshape(-1, 4)
    areas = [row.get("area") for row in kept]
    starts = np.searchsorted(np.asarray(owners, dtype=np.int64)[order], np.arange(len(pictures) + 1))
    columns = _Columns(
        starts=starts[:-1].astype(np.int64),
        ends=starts[1:].astype(np.int64),
        boxes=np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]),
        classes=np.array([class_of[row["category_id"]] for row in kept], dtype=np.int64),
        crowd=np.array([bool(row.get("iscrowd", 0)) for row in kept], dtype=np.bool_),
        areas=np.array(
            [b[2] * b[3] if a is None else a for a, b in zip(areas, boxes, strict=True)], np.float64
        ),
        ids=np.array([row["id"] for row in kept], dtype=np.int64),
        segmentations=_segmentations(kept),
    )
    _note_oddities(columns, pictures, problems)
    return columns


def _segmentations(kept: Sequence[Mapping[str, Any]]) -> list[Any] | None:
    if kept and not any(row.get("segmentation") for row in kept[:100]):
        return None
    return [row.get("segmentation") for row in kept]


def _fits(
    row: Mapping[str, Any],
    where: str,
    row_of: Mapping[ImageId | None, int],
    class_of: Mapping[ImageId | None, int],
    seen: set[int],
    problems: Problems,
) -> bool:
    """Whether an annotation can be used; its fault is told, or counted, otherwise."""
    number, box, area = row.get("id"), row.get("bbox"), row.get("area")
    if not isinstance(number, int):
        problems.fault("an annotation without an id", where, expected="a whole number", got=number)
    elif number in seen:
        problems.fault("an annotation id that is there twice", where, expected="every id once", got=number)
    elif _key(row, "image_id") not in row_of:
        problems.fault(
            "an annotation of an image that is not there",
            where,
            expected="an id of the images",
            got=row.get("image_id"),
        )
    elif _key(row, "category_id") not in class_of:
        problems.fault(
            "an annotation of a category that is not there",
            where,
            expected="an id of the categories",
            got=row.get("category_id"),
        )
    elif not _is_box(box):
        problems.fault(
            "a box that is none",
            where,
            expected="[x, y, width, height], finite, width and height of 0 or more",
            got=box,
        )
    elif area is not None and not (isinstance(area, int | float) and math.isfinite(area) and area >= 0):
        problems.fault("an area that is none", where, expected="a number of pixels", got=area)
    else:
        seen.add(number)
        if number == 0:
            problems.note("annotation id 0, which pycocotools loses", where)
        return True
    return False


def _key(row: Mapping[str, Any], name: str) -> ImageId | None:
    """A field that should be an id; None where it is something that cannot be one."""
    value = row.get(name)
    return value if isinstance(value, int | str) else None


def _is_box(box: object) -> bool:
    if not isinstance(box, list) or len(box) != 4:
        return False
    try:
        # Sums and comparisons of four numbers cost less than asking each for its type.
        return math.isfinite(sum(box)) and box[2] >= 0 and box[3] >= 0
    except TypeError:
        return False


def _note_oddities(columns: _Columns, pictures: Sequence[_Picture], problems: Problems) -> None:
    owners = np.repeat(np.arange(len(pictures)), columns.ends - columns.starts)
    sides = np.array([p.size[::-1] for p in pictures], dtype=np.float64)[owners]
    # COCO rounds its boxes to hundredths.
    outside = (columns.boxes[:, :2] < -0.5).any(axis=1) | (columns.boxes[:, 2:] > sides + 0.5).any(axis=1)
    for number in columns.ids[outside]:
        problems.note("a box that reaches beyond its picture", f"annotation {number}")
    for number, owner, mask in zip(columns.ids, owners.tolist(), columns.segmentations or (), strict=False):
        if not has_mask_form(mask, pictures[owner].size):
            problems.note("an object without a mask of its picture's size", f"annotation {number}")


def _part(
    pictures: Sequence[_Picture], columns: _Columns, keep: KeepImages, folder: str
) -> tuple[list[_Picture], _Columns]:
    """The pictures that are wanted; their annotations stay where they are."""
    wanted = np.array([picture.file_name.startswith(folder) for picture in pictures], dtype=np.bool_)
    if keep == "with_objects":
        wanted &= columns.ends > columns.starts
    rows = np.flatnonzero(wanted).tolist()
    part = replace(columns, starts=columns.starts[wanted], ends=columns.ends[wanted])
    return [pictures[row] for row in rows], part
