"""Cityscapes' own files of instances, as the COCO-format content that the scorers read.

Truth: ``gtFine/val/CITY/*_gtFine_instanceIds.png``, 16 bits: a label's id times 1000 and a number where
objects are told apart, the label's id alone where they are not. Answers: for every picture one text file
``CITY_SEQUENCE_FRAME*.txt`` anywhere in a folder; a line names a picture of a mask (from the text file on;
anything but zero belongs to it), the id of a label, and a score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics.label_images import read_label_map
from ovperception.datasets.vocabularies import load_table
from ovperception.errors import InvalidDataset, MissingFile
from ovperception.rle import RLE

__all__ = ["cityscapes_results", "cityscapes_truth", "cityscapes_void"]

_TRUTH = "_gtFine_instanceIds.png"
_PICTURE = "_leftImg8bit.png"
_SEVERAL = 1000  # from here on an id is the label's times 1000 and a number


def cityscapes_truth(folder: Path) -> dict[str, Any]:
    """A split such as ``gtFine/val``: its pictures by name, numbered from 1, groups as crowds, and ``void``.

    Raises:
        MissingFile: the folder has no pictures of instances.
        InvalidDataset: one cannot be read, or has an id of no label.
    """
    paths = sorted(folder.rglob(f"*{_TRUTH}"))
    if not paths:
        raise MissingFile(
            "There are no instances of Cityscapes in this folder",
            field=str(folder),
            expected=f"CITY/*{_TRUTH}",
            mend="Name the folder of a split, such as gtFine/val",
        )
    labels = {row["id"]: row for row in load_table("cityscapes_labels_all")}
    things = {i: row for i, row in labels.items() if row["has_instances"] and not row["ignore_in_eval"]}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, path in enumerate(paths, start=1):
        values = read_label_map(path)
        name = path.relative_to(folder).as_posix().removesuffix(_TRUTH)
        height, width = values.shape
        image = {"id": number, "file_name": name + _PICTURE, "height": height, "width": width}
        images.append(image | {"void": _void(values)})
        for instance in np.unique(values).tolist():
            label = instance // _SEVERAL if instance >= _SEVERAL else instance
            if label not in labels:
                raise InvalidDataset(
                    f"{path.name} has an id of no label", expected="ids of labels, times 1000", got=instance
                )
            if label in things:
                row = _row(values == instance) | {"iscrowd": int(instance < _SEVERAL)}
                place = {"id": len(annotations) + 1, "image_id": number, "category_id": label}
                annotations.append(place | row)
    categories = [{"id": i, "name": row["name"]} for i, row in things.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def cityscapes_void(folder: Path, name: str) -> dict[str, Any]:
    """RLE of what is not judged in a picture, such as ``ulm/ulm_000000_000019`` of the split in a folder.

    Raises:
        MissingFile: there is none.
        InvalidDataset: it cannot be read.
    """
    return _void(read_label_map(folder / f"{name}{_TRUTH}"))


def _void(values: NDArray[np.integer]) -> dict[str, Any]:
    # Of labels that are not judged but told apart (caravan, trailer) only the groups, as in the script.
    ignored = [row["id"] for row in load_table("cityscapes_labels_all") if row["ignore_in_eval"]]
    return dict(RLE.encode(np.isin(values, ignored)).to_coco())


def _row(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Mask, box and area."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = [0, 0, 0, 0]
    if len(rows):
        top, left = int(rows[0]), int(columns[0])
        box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    return {"segmentation": dict(RLE.encode(mask).to_coco()), "bbox": box, "area": int(mask.sum())}


def cityscapes_results(folder: Path, truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answers in the form that Cityscapes' server takes, as the rows of a COCO result file.

    Args:
        folder: of the answers; text files may lie anywhere in it.
        truth: as `cityscapes_truth` read it.

    Raises:
        MissingFile: a picture has no text file, or a mask does not exist.
        InvalidDataset: a picture has several, a line is wrong, or a mask lies outside the folder.
    """
    texts: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.txt")):
        texts.setdefault("_".join(path.stem.split("_")[:3]), []).append(path)
    rows = []
    for image in truth["images"]:
        name = Path(str(image["file_name"])).name.removesuffix(_PICTURE)
        found = texts.get("_".join(name.split("_")[:3]), [])
        if not found:
            raise MissingFile(
                "A picture has no text file of answers",
                field=str(folder),
                expected=f"{name}*.txt",
                mend="A picture without any object has an empty one.",
            )
        if len(found) > 1:
            raise InvalidDataset(
                "A picture has several text files of answers",
                field=str(folder),
                expected=f"one {name}*.txt",
                got=", ".join(path.relative_to(folder).as_posix() for path in found[:3]),
            )
        rows += [{"image_id": image["id"], **row} for row in _answers(found[0], folder)]
    return rows


def _answers(text: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Of a mask that is named several times the last line counts, as in the script."""
    said: dict[Path, tuple[int, float]] = {}
    for number, line in enumerate(text.read_text(errors="replace").splitlines(), start=1):
        parts = line.split()
        if not parts:
            continue
        try:
            name, label, score = parts[0], int(float(parts[1])), float(parts[2])
        except (IndexError, ValueError, OverflowError):
            name, label, score = "", 0, 0.0
        if not name or len(parts) != 3:
            raise InvalidDataset(
                "This line is no answer",
                field=f"{text.name}, line {number}",
                expected="a mask's path without spaces, the id of a label, and a score",
                got=line,
            )
        path = (text.parent / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise InvalidDataset(
                "A mask lies outside the folder of answers", field=f"{text.name}, line {number}", got=name
            )
        said[path] = label, score
    for path, (label, score) in said.items():
        yield {"category_id": label, "score": score, **_row(read_label_map(path) != 0)}
