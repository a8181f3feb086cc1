"""Mapillary Vistas v1.2: 65 classes, 37 of them things.

::

    ROOT/validation/images/*.jpg
    ROOT/validation/labels/*.png        0 to 64 the classes, 65 unlabelled
    ROOT/validation/panoptic/panoptic_2018.json, *.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ovperception.datasets.categories import builtin_classes
from ovperception.datasets.folders import Origin, first_there
from ovperception.datasets.labelled_images import LabelledImages, LabelTable, folder_pairs
from ovperception.datasets.panoptic_files import PanopticImages, panoptic_dataset

__all__ = ["MapillarySplit", "mapillary", "mapillary_panoptic"]

MapillarySplit = Literal["training", "validation"]
_MAPILLARY = Origin(
    title="Mapillary Vistas v1.2",
    home="https://www.mapillary.com/dataset/vistas",
    layout="validation/images/ beside validation/labels/ and validation/panoptic/",
)


def mapillary(root: Path | str, split: MapillarySplit = "validation") -> LabelledImages:
    """The 65 classes as one label a pixel.

    Raises:
        MissingFile: a folder or the labels of a picture are missing.
    """
    home = _home(Path(root), split)
    return LabelledImages(
        name=f"mapillary_vistas_{split}",
        classes=builtin_classes("mapillary_65"),
        table=LabelTable.of(range(65), 65),
        pairs=folder_pairs(home / "images", home / "labels", label_suffix=".png", origin=_MAPILLARY),
        annotations=home / "labels",
    )


def mapillary_panoptic(root: Path | str, split: MapillarySplit = "validation") -> PanopticImages:
    """The 65 classes as segments.

    Raises:
        MissingFile: a file or folder is missing.
        InvalidDataset: the file is broken.
    """
    home = _home(Path(root), split)
    return panoptic_dataset(
        home / "panoptic" / "panoptic_2018.json",
        home / "panoptic",
        home / "images",
        name=f"mapillary_vistas_panoptic_{split}",
        known=builtin_classes("mapillary_65"),
        origin=_MAPILLARY,
    )


def _home(root: Path, split: MapillarySplit) -> Path:
    return first_there((root / split, root / "mapillary_vistas" / split), _MAPILLARY)
