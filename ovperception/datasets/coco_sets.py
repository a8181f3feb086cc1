"""COCO in its official layout, and the data sets that stand on its pictures.

::

    ROOT/annotations/instances_val2017.json     ROOT/val2017/*.jpg
    ROOT/annotations/panoptic_val2017.json      ROOT/panoptic_val2017/*.png (or under annotations/)
    ROOT/stuffthingmaps/val2017/*.png           COCO-Stuff 164k (or annotations/val2017/)

COCO-Stuff's numbers are category ids less one, 255 is unlabelled. COCO-Object (GroupViT and the training-free
papers) is the same files with the 80 things as 1 to 80 and all else, the unlabelled too, as background.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ovperception.datasets.categories import builtin_classes
from ovperception.datasets.coco import CocoDataset, coco_dataset
from ovperception.datasets.folders import Origin, first_there
from ovperception.datasets.labelled_images import LabelledImages, LabelTable, Pair, folder_pairs
from ovperception.datasets.panoptic_files import PanopticImages, panoptic_dataset
from ovperception.datasets.vocabularies import load_vocabulary_file

__all__ = ["COCO", "CocoSplit", "coco_instances", "coco_object", "coco_panoptic", "coco_stuff", "ov_coco"]

CocoSplit = Literal["train", "val"]
COCO = Origin(
    title="COCO 2017",
    home="https://cocodataset.org/#download",
    layout="annotations/instances_val2017.json beside val2017/",
)
_STUFF = Origin(
    title="COCO-Stuff 164k",
    home="https://github.com/nightrome/cocostuff",
    layout="stuffthingmaps/val2017/ beside val2017/",
)
_THINGS = 91
_UNLABELLED = 255


def coco_instances(root: Path | str, split: CocoSplit = "val") -> CocoDataset:
    """The 80 classes of COCO detection, val2017 or train2017.

    Raises:
        MissingFile: a file is missing.
        InvalidDataset: the file is broken.
    """
    root = Path(root)
    return coco_dataset(
        root / "annotations" / f"instances_{split}2017.json",
        _pictures(root, split),
        name=f"coco_2017_{split}",
        known=builtin_classes("coco_80"),
        origin=COCO,
    )


def ov_coco(root: Path | str, split: CocoSplit = "val") -> CocoDataset:
    """OV-COCO: 48 base and 17 novel classes, pictures with at least one of them (OVR-CNN's split).

    Made of the ordinary ``instances_val2017.json``; the 15 other classes are dropped.

    Raises:
        MissingFile: a file is missing.
        InvalidDataset: the file is broken.
    """
    root = Path(root)
    return coco_dataset(
        root / "annotations" / f"instances_{split}2017.json",
        _pictures(root, split),
        name=f"ov_coco_{split}",
        known=builtin_classes("ov_coco_48_17"),
        others="drop",
        keep="with_objects",
        origin=COCO,
    )


def coco_panoptic(root: Path | str, split: CocoSplit = "val") -> PanopticImages:
    """The 133 classes of COCO panoptic; its labels are those of FC-CLIP's mIoU on COCO.

    Raises:
        MissingFile: a file is missing.
        InvalidDataset: the file is broken.
    """
    root = Path(root)
    folder = f"panoptic_{split}2017"
    return panoptic_dataset(
        root / "annotations" / f"{folder}.json",
        first_there((root / folder, root / "annotations" / folder), COCO),
        _pictures(root, split),
        name=f"coco_panoptic_2017_{split}",
        known=builtin_classes("coco_panoptic_133"),
        origin=COCO,
    )


def coco_stuff(root: Path | str, split: CocoSplit = "val") -> LabelledImages:
    """The 171 classes of COCO-Stuff 164k, from its pixel maps.

    Raises:
        MissingFile: a folder or the labels of a picture are missing.
    """
    classes = builtin_classes("coco_stuff_171")
    table = LabelTable.of([number - 1 for number in classes.category_ids], _UNLABELLED)
    pairs, labels = _stuff_pairs(Path(root), split)
    return LabelledImages(
        name=f"coco_stuff_164k_{split}", classes=classes, table=table, pairs=pairs, annotations=labels
    )


def coco_object(root: Path | str, split: CocoSplit = "val") -> LabelledImages:
    """COCO-Object: background and the 80 things, from the pixel maps of COCO-Stuff.

    Raises:
        MissingFile: a folder or the labels of a picture are missing.
    """
    classes = builtin_classes("coco_object_81")
    things = {entry.id - 1: i for i, entry in enumerate(load_vocabulary_file("coco_object_81").classes) if i}
    background = dict.fromkeys((*range(_THINGS, 182), _UNLABELLED), 0)
    pairs, labels = _stuff_pairs(Path(root), split)
    return LabelledImages(
        name=f"coco_object_{split}",
        classes=classes,
        table=LabelTable(classes=background | things),
        pairs=pairs,
        annotations=labels,
    )


def _pictures(root: Path, split: CocoSplit) -> Path:
    return first_there((root / f"{split}2017", root / "images" / f"{split}2017"), COCO)


def _stuff_pairs(root: Path, split: CocoSplit) -> tuple[tuple[Pair, ...], Path]:
    folder = f"{split}2017"
    labels = first_there(
        (root / "stuffthingmaps" / folder, root / "annotations" / folder, root / f"stuffthingmaps_{folder}"),
        _STUFF,
    )
    return folder_pairs(_pictures(root, split), labels, label_suffix=".png", origin=_STUFF), labels
