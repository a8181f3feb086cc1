"""ADE20K: 150 classes (scene parsing, panoptic, instances) and the 847 of the full set.

::

    ROOT/images/validation/*.jpg
    ROOT/annotations/validation/*.png              0 is "other", 1 to 150 the classes
    ROOT/annotations_instance/validation/*.png     for segments: R thing class 1 to 100, G instance

    ROOT/images_detectron2/validation/*.jpg        847, as Mask2Former and FC-CLIP prepare it: 16-bit TIFF,
    ROOT/annotations_detectron2/validation/*.tif   0 to 846, 65535 is not judged

ROOT is ``ADEChallengeData2016`` and ``ADE20K_2021_17_01``, or the folder above. Segments are put together as
FC-CLIP's preparation does: stuff from the semantic map, then the things pasted over it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from ovperception.datasets.categories import Classes, builtin_classes
from ovperception.datasets.folders import Origin, first_there, require_folder
from ovperception.datasets.label_files import read_id_map, read_labels
from ovperception.datasets.labelled_images import LabelledImages, LabelTable, Pair, folder_pairs
from ovperception.datasets.samples import PanopticTruth, TruthSegment
from ovperception.errors import InvalidDataset

__all__ = ["AdeSplit", "ade20k_150", "ade20k_150_panoptic", "ade20k_847"]

AdeSplit = Literal["training", "validation"]
_ADE = Origin(
    title="ADE20K (SceneParse150)",
    home="http://sceneparsing.csail.mit.edu",
    layout="images/validation/ beside annotations/validation/ and, for segments,"
    " annotations_instance/validation/",
)
_FULL = Origin(
    title="ADE20K-847",
    home="https://groups.csail.mit.edu/vision/datasets/ADE20K, prepared by FC-CLIP's datasets/"
    "prepare_ade20k_full_sem_seg.py",
    layout="images_detectron2/validation/ beside annotations_detectron2/validation/",
)
_TABLE = LabelTable.of(range(1, 151), 0)


def ade20k_150(root: Path | str, split: AdeSplit = "validation") -> LabelledImages:
    """The 150 classes as one label a pixel.

    Raises:
        MissingFile: a folder or the labels of a picture are missing.
    """
    home = _home(Path(root), "ADEChallengeData2016", "annotations", _ADE)
    return LabelledImages(
        name=f"ade20k_150_{split}",
        classes=builtin_classes("ade20k_150"),
        table=_TABLE,
        pairs=_pairs(home, split),
        annotations=home / "annotations" / split,
    )


def ade20k_150_panoptic(root: Path | str, split: AdeSplit = "validation") -> LabelledImages:
    """The 150 classes as labels, segments and instances of the 100 things.

    Raises:
        MissingFile: a folder or the labels of a picture are missing.
    """
    home = _home(Path(root), "ADEChallengeData2016", "annotations", _ADE)
    instances = require_folder(home / "annotations_instance" / split, _ADE)
    classes = builtin_classes("ade20k_150")
    return LabelledImages(
        name=f"ade20k_150_panoptic_{split}",
        classes=classes,
        table=_TABLE,
        pairs=_pairs(home, split),
        annotations=instances,
        read_segments=partial(_segments, instances, classes),
    )


def ade20k_847(root: Path | str, split: AdeSplit = "validation") -> LabelledImages:
    """The 847 classes of the full set, as Mask2Former and FC-CLIP prepare them.

    Raises:
        MissingFile: a folder or the labels of a picture are missing.
    """
    home = _home(Path(root), "ADE20K_2021_17_01", "annotations_detectron2", _FULL)
    labels = home / "annotations_detectron2" / split
    return LabelledImages(
        name=f"ade20k_847_{split}",
        classes=builtin_classes("ade20k_847"),
        table=LabelTable.of(range(847), 65535),
        pairs=folder_pairs(home / "images_detectron2" / split, labels, label_suffix=".tif", origin=_FULL),
        annotations=labels,
    )


def _home(root: Path, name: str, inside: str, origin: Origin) -> Path:
    return first_there((root / inside, root / name / inside), origin).parent


def _pairs(home: Path, split: AdeSplit) -> tuple[Pair, ...]:
    return folder_pairs(
        home / "images" / split, home / "annotations" / split, label_suffix=".png", origin=_ADE
    )


def _segments(folder: Path, classes: Classes, pair: Pair) -> PanopticTruth:
    labels = _TABLE.apply(read_labels(pair.labels), pair.labels)
    path = folder / f"{pair.image_id}.png"
    packed = read_id_map(path)
    things = [i for i, thing in enumerate(classes.vocabulary.is_thing) if thing]
    kinds, instances = packed % 256, packed // 256 % 256
    if packed.shape != labels.shape or kinds[instances > 0].max(initial=0) > len(things):
        raise InvalidDataset(
            f"{path} does not fit {pair.labels}",
            field="annotations_instance",
            expected=f"{labels.shape} pixels, thing classes 1 to {len(things)} in red",
            got=f"{packed.shape}, {kinds[instances > 0].max(initial=0)}",
        )
    is_stuff = np.array([*(not thing for thing in classes.vocabulary.is_thing), False])[
        labels
    ]  # IGNORE is last
    ids = np.where(is_stuff, labels + 1, 0)
    ids = np.where(instances > 0, 1000 * kinds + instances, ids).astype(np.int32)
    present, areas = np.unique(ids[ids > 0], return_counts=True)
    return PanopticTruth(
        ids=ids,
        segments=tuple(
            TruthSegment(
                id=number,
                class_id=number - 1 if number < 1000 else things[number // 1000 - 1],
                is_crowd=False,
                area=area,
            )
            for number, area in zip(present.tolist(), areas.tolist(), strict=True)
        ),
    )
