"""Cityscapes: 19 classes as labels, segments and instances.

::

    ROOT/leftImg8bit/val/CITY/*_leftImg8bit.png
    ROOT/gtFine/val/CITY/*_gtFine_labelIds.png, *_gtFine_instanceIds.png

Of the 35 labels 19 are judged. Segments are those of the official ``createPanopticImgs``: of a class with
instances, what was not told apart is a crowd.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ovperception.datasets.categories import builtin_classes
from ovperception.datasets.folders import Origin, first_there
from ovperception.datasets.label_files import read_labels
from ovperception.datasets.labelled_images import LabelledImages, LabelTable, Pair, folder_pairs
from ovperception.datasets.samples import PanopticTruth, TruthSegment
from ovperception.datasets.vocabularies import load_table

__all__ = ["CityscapesSplit", "cityscapes"]

CityscapesSplit = Literal["train", "val"]
_CITYSCAPES = Origin(
    title="Cityscapes",
    home="https://www.cityscapes-dataset.com/downloads (leftImg8bit and gtFine, trainvaltest)",
    layout="leftImg8bit/val/CITY/ beside gtFine/val/CITY/",
)
_LABELS = "_gtFine_labelIds.png"
_SEVERAL = 1000  # an instance id is the label's id * 1000 + a number; below, the label's id itself


def cityscapes(root: Path | str, split: CityscapesSplit = "val") -> LabelledImages:
    """The 19 classes, 8 of them things.

    Raises:
        MissingFile: a folder or the labels of a picture are missing.
    """
    root = Path(root)
    home = first_there((root / "gtFine", root / "cityscapes" / "gtFine"), _CITYSCAPES).parent
    labels = home / "gtFine" / split
    pairs = folder_pairs(
        home / "leftImg8bit" / split,
        labels,
        image_suffix="_leftImg8bit.png",
        label_suffix=_LABELS,
        origin=_CITYSCAPES,
    )
    return LabelledImages(
        name=f"cityscapes_{split}",
        classes=builtin_classes("cityscapes_19"),
        table=_table(),
        pairs=pairs,
        annotations=labels,
        read_segments=_segments,
    )


def _table() -> LabelTable:
    judged = builtin_classes("cityscapes_19").category_ids
    known = {row["id"] % 256 for row in load_table("cityscapes_labels_all")} | {255}
    return LabelTable.of(judged, *(known - set(judged)))


def _segments(pair: Pair) -> PanopticTruth:
    path = pair.labels.with_name(pair.labels.name.replace(_LABELS, "_gtFine_instanceIds.png"))
    raw = read_labels(path).astype(np.int32)
    labels = _table().apply(np.where(raw < _SEVERAL, raw, raw // _SEVERAL), path)
    ids = np.where(labels >= 0, raw, 0)
    present, first, areas = np.unique(ids, return_index=True, return_counts=True)
    things = builtin_classes("cityscapes_19").vocabulary.is_thing
    segments = []
    for number, where, area in zip(present.tolist(), first.tolist(), areas.tolist(), strict=True):
        if number:
            class_id = int(labels.flat[where])
            crowd = number < _SEVERAL and things[class_id]
            segments.append(TruthSegment(id=number, class_id=class_id, is_crowd=crowd, area=area))
    return PanopticTruth(ids=ids.astype(np.int32), segments=tuple(segments))
