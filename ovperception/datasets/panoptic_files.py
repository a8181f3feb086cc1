"""COCO panoptic format: a JSON of segments beside a folder of PNGs whose colours are segment ids.

The same file gives three truths: segments, the class per pixel (void is not judged, crowds keep their
class), and, of the things, instances with masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ovperception.datasets.categories import Classes, classes_of
from ovperception.datasets.folders import LOCAL, Origin, read_json, require_folder, rows
from ovperception.datasets.label_files import read_id_map
from ovperception.datasets.samples import (
    IGNORE,
    ImageId,
    Instances,
    LabelMap,
    PanopticTruth,
    Sample,
    Truth,
    TruthSegment,
    check_index,
)
from ovperception.errors import InvalidDataset
from ovperception.rle import RLE
from ovperception.vocabulary import Vocabulary

__all__ = ["PanopticImages", "labels_of", "panoptic_dataset", "things_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A row of ``annotations``."""

    image_id: ImageId
    image_file: str
    map_file: str
    size: tuple[int, int]
    segments: tuple[TruthSegment, ...]


class PanopticImages:
    """A COCO panoptic file, opened; made by `panoptic_dataset`.

    Attributes:
        name: as given.
        annotations: the JSON file.
        maps: folder of the id maps.
        images: folder of the pictures.
    """

    truths: frozenset[Truth] = frozenset(("panoptic", "labels", "instances"))

    def __init__(
        self,
        *,
        name: str,
        annotations: Path,
        maps: Path,
        images: Path,
        classes: Classes,
        entries: Sequence[_Entry],
    ) -> None:
        self.name = name
        self.annotations: Path | None = annotations
        self.maps = maps
        self.images = images
        self._classes = classes
        self._entries = tuple(entries)

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes, things and stuff."""
        return self._classes.vocabulary

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The file's id of each class."""
        return self._classes.category_ids

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._entries)

    def sample(self, index: int) -> Sample:
        """Picture `index` in the order of the file's annotations."""
        entry = self._entries[check_index(index, len(self))]
        read = partial(self._panoptic, entry)
        return Sample(
            image_id=entry.image_id,
            file_name=entry.image_file,
            path=self.images / entry.image_file,
            size=entry.size,
            read_panoptic=read,
            read_labels=lambda: labels_of(read()),
            read_instances=lambda: things_of(read(), self.vocabulary),
        )

    def _panoptic(self, entry: _Entry) -> PanopticTruth:
        path = self.maps / entry.map_file
        ids = read_id_map(path)
        if ids.shape != entry.size:
            raise InvalidDataset(
                f"{path} has another size than its annotation",
                field="panoptic",
                expected=f"(height, width) = {entry.size}",
                got=ids.shape,
            )
        check_ids(ids, entry.segments, path)
        return PanopticTruth(ids=ids, segments=entry.segments)


def check_ids(ids: LabelMap, segments: Sequence[TruthSegment], path: Path) -> None:
    """Checks that map and list of segments name the same ids.

    Raises:
        InvalidDataset: they do not.
    """
    drawn, listed = set(np.unique(ids).tolist()) - {0}, {segment.id for segment in segments}
    if drawn != listed:
        raise InvalidDataset(
            f"{path} and its annotation name different segments",
            field="segments_info",
            expected="every id in both",
            got=f"map alone: {sorted(drawn - listed)[:5]}; list alone: {sorted(listed - drawn)[:5]}",
        )


def labels_of(truth: PanopticTruth) -> LabelMap:
    """The class of each pixel, (H, W) int32; void is `IGNORE`."""
    ids = np.array([0, *(segment.id for segment in truth.segments)])
    classes = np.array([IGNORE, *(segment.class_id for segment in truth.segments)], np.int32)
    order = np.argsort(ids)
    labels: LabelMap = classes[order][np.searchsorted(ids[order], truth.ids)]
    return labels


def things_of(truth: PanopticTruth, vocabulary: Vocabulary) -> Instances:
    """The segments of things as instances, boxes tight around their pixels."""
    things = [s for s in truth.segments if vocabulary.is_thing[s.class_id]]
    boxes, areas = np.zeros((len(things), 4)), np.zeros(len(things))
    for n, segment in enumerate(things):
        mask = (truth.ids == segment.id).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        boxes[n], areas[n] = (x, y, x + width, y + height), np.count_nonzero(mask)
    return Instances(
        boxes=boxes,
        classes=np.array([s.class_id for s in things], np.int64),
        crowd=np.array([s.is_crowd for s in things], np.bool_),
        areas=areas,
        ids=np.array([s.id for s in things], np.int64),
        read_mask=lambda n: RLE.encode(truth.ids == things[n].id),
    )


def panoptic_dataset(
    annotations: Path | str,
    maps: Path | str,
    images: Path | str,
    *,
    name: str = "",
    known: Classes | Vocabulary | None = None,
    image_suffix: str = ".jpg",
    origin: Origin = LOCAL,
) -> PanopticImages:
    """Opens a COCO panoptic file.

    Args:
        annotations: the JSON file.
        maps: folder of the PNGs.
        images: folder of the pictures.
        name: what to call it; the file's stem if not given.
        known: the classes, as for `coco_dataset`.
        image_suffix: of the pictures, where ``images`` names none.
        origin: where the data set is from.

    Raises:
        MissingFile: file or folders are missing.
        InvalidDataset: the file is broken or has unknown categories.
    """
    path, maps, images = Path(annotations), Path(maps), Path(images)
    data = read_json(path, origin)
    require_folder(maps, origin)
    require_folder(images, origin)
    classes = classes_of(rows(data, "categories", path), path, known=known)
    pictures = {row.get("id"): row for row in rows(data, "images", path)}
    entries = []
    seen = set[object]()
    for index, row in enumerate(rows(data, "annotations", path)):
        image_id = row.get("image_id")
        picture = pictures.get(image_id) if isinstance(image_id, int | str) else None
        if picture is None or image_id in seen:
            raise InvalidDataset(
                f"{path} has an annotation of an image that is not there, or two of one",
                field=f"annotations[{index}].image_id",
                expected="the id of an image, once",
                got=image_id,
            )
        seen.add(image_id)
        entries.append(_entry(row, picture, classes, f"{path}: annotations[{index}]", image_suffix))
    if not entries:
        raise InvalidDataset(f"{path} has no annotations", field="annotations", expected="one or more")
    return PanopticImages(
        name=name or path.stem, annotations=path, maps=maps, images=images, classes=classes, entries=entries
    )


def _entry(
    row: Mapping[str, Any], picture: Mapping[str, Any], classes: Classes, where: str, image_suffix: str
) -> _Entry:
    height, width = picture.get("height"), picture.get("width")
    map_file, segments = row.get("file_name"), row.get("segments_info")
    if not (isinstance(map_file, str) and isinstance(segments, list)):
        raise InvalidDataset(
            f"{where} is not of the panoptic format",
            expected='"file_name" and "segments_info"',
            got=f"keys {', '.join(row)}",
        )
    if not (isinstance(height, int) and isinstance(width, int)):
        raise InvalidDataset(f"{where}: its image has no size", expected='"height" and "width"')
    image_file = picture.get("file_name")
    return _Entry(
        image_id=row["image_id"],
        image_file=image_file if isinstance(image_file, str) else Path(map_file).stem + image_suffix,
        map_file=map_file,
        size=(height, width),
        segments=tuple(
            _segment(s, classes.index, f"{where}.segments_info[{n}]") for n, s in enumerate(segments)
        ),
    )


def _segment(data: object, index: Mapping[int, int], where: str) -> TruthSegment:
    row = data if isinstance(data, Mapping) else {}
    number, category = row.get("id"), row.get("category_id")
    if not (isinstance(number, int) and number > 0 and isinstance(category, int) and category in index):
        raise InvalidDataset(
            f"{where} is no segment of a known category",
            expected='{"id": 1 or more, "category_id": one of the categories}',
            got=repr(data)[:100],
        )
    return TruthSegment(
        id=number,
        class_id=index[category],
        is_crowd=bool(row.get("iscrowd", 0)),
        area=int(row.get("area") or 0),
    )
