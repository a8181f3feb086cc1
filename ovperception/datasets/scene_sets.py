"""Our procedural world as a data set: drawn when asked, or read from a folder that ``ovp data scenes`` wrote.

Both give the same numbers for the same scenes; the folder is read by the ordinary COCO, LVIS and label
readers.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.categories import Classes
from ovperception.datasets.coco import CocoDataset, coco_dataset
from ovperception.datasets.folders import Origin
from ovperception.datasets.labelled_images import LabelledImages, LabelTable, folder_pairs
from ovperception.datasets.panoptic_files import PanopticImages, panoptic_dataset
from ovperception.datasets.samples import (
    Dataset,
    Instances,
    LabelMap,
    PanopticTruth,
    Sample,
    Truth,
    TruthSegment,
    check_index,
)
from ovperception.datasets.scenes import SceneSample, Split, scene, scene_seed
from ovperception.datasets.scenes.vocabulary import Part, chosen_categories, scenes_vocabulary
from ovperception.errors import InvalidParameter
from ovperception.rle import RLE
from ovperception.vocabulary import Vocabulary

__all__ = ["DrawnScenes", "ScenesForm", "scenes_classes", "scenes_folder"]

ScenesForm = Literal["instances", "panoptic", "lvis", "ade"]
_SCENES = Origin(
    title="a folder of scenes",
    home="`ovp data scenes --out DIR`, which draws it",
    layout="images/, instances.json",
)
_IDS_PER_SCENE = 1 << 12


def scenes_classes(part: Part = "all", *, stuff: bool = True) -> Classes:
    """The classes of the world with the ids its files use."""
    ids = tuple(category.id for category in chosen_categories(part, stuff=stuff))
    return Classes(vocabulary=scenes_vocabulary(part, stuff=stuff), category_ids=ids)


class DrawnScenes:
    """Scenes drawn when they are asked for.

    Args:
        split: "train", "val" or "test".
        images: how many.
        first: index of the first.
        size: side of the square scenes in pixels.
        words: classes that are there; things of others are none, and their pixels are not judged.

    Raises:
        InvalidParameter: an unknown split or an impossible index.
    """

    truths: frozenset[Truth] = frozenset(get_args(Truth))
    annotations: Path | None = None

    def __init__(
        self,
        split: Split = "val",
        images: int = 500,
        *,
        first: int = 0,
        size: int = 512,
        words: Part = "all",
    ) -> None:
        if images < 1:
            raise InvalidParameter(
                "There is nothing to draw", field="images", expected="1 or more", got=images
            )
        scene_seed(split, first)
        scene_seed(split, first + images - 1)
        self.name = f"scenes_{split}"
        self._split: Split = split
        self._first = first
        self._images = images
        self._side = size
        self._classes = scenes_classes(words)
        known = self._classes.category_ids
        others = {category.id for category in chosen_categories("all")} - set(known)
        self._table = LabelTable.of(known, *others)

    @property
    def vocabulary(self) -> Vocabulary:
        """Things, then stuff."""
        return self._classes.vocabulary

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The id of each class in exported files."""
        return self._classes.category_ids

    def __len__(self) -> int:
        """Number of scenes."""
        return self._images

    def sample(self, index: int) -> Sample:
        """Scene `index`, counted from the first; its id and file name are those of an export."""
        number = self._first + check_index(index, len(self))
        return Sample(
            image_id=number + 1,
            file_name=f"{number + 1:012d}.jpg",
            size=(self._side, self._side),
            read_image=partial(self._image, number),
            read_instances=partial(self._instances, number),
            read_labels=partial(self._labels, number),
            read_panoptic=partial(self._panoptic, number),
        )

    def drawn(self, index: int) -> SceneSample:
        """Scene `index` with all that is known of it, words that are not asked included."""
        return self._drawn(self._first + check_index(index, len(self)))

    def _drawn(self, number: int) -> SceneSample:
        return _drawn(self._split, number, self._side)

    def _image(self, number: int) -> NDArray[np.uint8]:
        return self._drawn(number).image

    def _instances(self, number: int) -> Instances:
        drawn, index = self._drawn(number), self._classes.index
        things = [thing for thing in drawn.things if thing.category_id in index]
        return Instances(
            boxes=np.array([t.box for t in things], np.float64).reshape(-1, 4),
            classes=np.array([index[t.category_id] for t in things], np.int64),
            crowd=np.zeros(len(things), np.bool_),
            areas=np.array([t.area for t in things], np.float64),
            ids=np.array([number * _IDS_PER_SCENE + t.id for t in things], np.int64),
            read_mask=lambda n: RLE.encode(drawn.mask(things[n].id)),
        )

    def _labels(self, number: int) -> LabelMap:
        return self._table.apply(self._drawn(number).labels, f"scene {number}")

    def _panoptic(self, number: int) -> PanopticTruth:
        drawn, index = self._drawn(number), self._classes.index
        judged = [segment for segment in drawn.segments if segment.category_id in index]
        kept = np.zeros(max(segment.id for segment in drawn.segments) + 1, np.int32)
        kept[[segment.id for segment in judged]] = [segment.id for segment in judged]
        return PanopticTruth(
            ids=kept[drawn.panoptic],
            segments=tuple(
                TruthSegment(id=s.id, class_id=index[s.category_id], is_crowd=False, area=s.area)
                for s in judged
            ),
        )


@lru_cache(maxsize=4)
def _drawn(split: Split, number: int, side: int) -> SceneSample:
    """Picture and truth are asked for one after the other, and drawn once."""
    return scene(split, number, (side, side))


def scenes_folder(root: Path | str, form: ScenesForm = "instances") -> Dataset:
    """An exported folder of scenes, by one of its annotation files.

    Raises:
        MissingFile: a file is missing.
        InvalidDataset: a file is broken.
        InvalidParameter: no such form.
    """
    root = Path(root)
    images, name = root / "images", f"scenes_{form}_{root.name}"
    if form in ("instances", "lvis"):
        return _objects(root, images, f"{form}.json", name)
    if form == "panoptic":
        return _panoptic(root, images, name)
    if form == "ade":
        return _labels(root, images, name)
    raise InvalidParameter(
        "There is no such form of scenes",
        field="form",
        expected=", ".join(get_args(ScenesForm)),
        got=form,
    )


def _objects(root: Path, images: Path, file: str, name: str) -> CocoDataset:
    return coco_dataset(root / file, images, name=name, known=scenes_classes(stuff=False), origin=_SCENES)


def _panoptic(root: Path, images: Path, name: str) -> PanopticImages:
    return panoptic_dataset(
        root / "panoptic.json", root / "panoptic", images, name=name, known=scenes_classes(), origin=_SCENES
    )


def _labels(root: Path, images: Path, name: str) -> LabelledImages:
    labels, classes = root / "ade" / "annotations", scenes_classes()
    return LabelledImages(
        name=name,
        classes=classes,
        table=LabelTable.of(classes.category_ids, 0),
        pairs=folder_pairs(images, labels, label_suffix=".png", origin=_SCENES),
        annotations=labels,
    )
