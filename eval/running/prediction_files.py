"""Predictions in the official submission formats, under ``OUT/predictions``.

::

    results.json                    COCO and LVIS: a list of detections
    panoptic.json, panoptic/*.png   COCO panoptic: id = R + 256 G + 65536 B
    labels/*.png                    label maps in the numbers of the data set's own files
    masks/*.png                     of folds: 255 where the class was found
    instances/*.txt, masks/*.png    Cityscapes, beside results.json, see `eval.running.instance_files`
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.running.journal import unwritable
from ovperception.datasets.labelled_images import LabelledImages
from ovperception.datasets.samples import Dataset, Sample
from ovperception.errors import OVPError
from ovperception.images import encode_png, write_file
from ovperception.structures import PanopticMap

__all__ = [
    "FOLDER",
    "LabelWriter",
    "label_numbers",
    "panoptic_name",
    "save_map",
    "save_text",
    "write_json_list",
    "write_json_object",
]

FOLDER = "predictions"


def label_numbers(dataset: Dataset) -> tuple[int, ...]:
    """The number that the data set's own label files use for each class; ids where it has none."""
    if not isinstance(dataset, LabelledImages):
        return dataset.category_ids
    numbers: dict[int, int] = {}
    for number, label in dataset.table.classes.items():
        numbers.setdefault(label, number)
    return tuple(numbers[i] for i in range(len(dataset.category_ids)))


class LabelWriter:
    """Writes label maps; undecided pixels become 255, or 65535 in deep ones.

    Args:
        out: folder of the run.
        dataset: whose numbers are written.
    """

    def __init__(self, out: Path, dataset: Dataset) -> None:
        numbers = label_numbers(dataset)
        deep = max(numbers) >= 255
        dtype = np.uint16 if deep else np.uint8
        self._table = np.array([*numbers, 65535 if deep else 255], dtype)
        self._out = out

    def write(self, sample: Sample, labels: NDArray[np.int32]) -> str:
        """Writes (H, W) classes, -1 for undecided; gives the name under ``predictions``."""
        stem = sample.image_id if isinstance(sample.image_id, str) else Path(sample.file_name).stem
        name = f"labels/{stem}.png"
        save_map(self._table[labels], self._out, name)
        return name


def panoptic_name(sample: Sample) -> str:
    """The PNG of a sample under ``predictions``."""
    stem = sample.image_id if isinstance(sample.image_id, str) else Path(sample.file_name).stem
    return f"panoptic/{stem}.png"


def save_map(content: PanopticMap | NDArray[Any], out: Path, name: str) -> None:
    """Writes a map whole or not at all.

    Raises:
        ResourceExhausted: the disk is full.
        InvalidInput: the folder cannot be written.
    """
    path = _placed(out, name)
    if isinstance(content, PanopticMap):
        content.save_png(path)
    else:
        write_file(path, encode_png(content))


def save_text(content: str, out: Path, name: str) -> None:
    """Writes a text whole or not at all; raises as `save_map`."""
    write_file(_placed(out, name), content.encode())


def _placed(out: Path, name: str) -> Path:
    path = out / FOLDER / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def write_json_list(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A list of objects, one a line, never all in memory.

    Raises:
        ResourceExhausted: the disk is full.
        InvalidParameter: the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            file.write("[")
            for number, row in enumerate(rows):
                file.write(",\n" if number else "\n")
                file.write(json.dumps(row))
            file.write("\n]\n")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise error if isinstance(error, OVPError) else unwritable(path, error) from error


def write_json_object(path: Path, content: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """An annotation file; raises as `write_json_list`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    write_file(path, (json.dumps(content) + "\n").encode())
