"""Miniature data sets in their official folder layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ovperception.datasets.vocabularies import load_vocabulary_file
from ovperception.images import save_image

SIZE = (4, 6)


def picture(path: Path, shade: int = 50) -> None:
    """A grey picture of `SIZE`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(path, np.full((*SIZE, 3), shade, np.uint8))


def label_map(path: Path, values: Any) -> None:
    """Whatever the suffix says, as OpenCV writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.asarray(values))


def id_map(path: Path, ids: Any) -> None:
    """A COCO panoptic PNG."""
    ids = np.asarray(ids)
    label_map(path, np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=-1).astype(np.uint8))


def columns(*values: int, dtype: type = np.uint8) -> Any:
    """A map of `SIZE` whose columns have these values; the last one goes on to the right."""
    row = np.full(SIZE[1], values[-1], dtype)
    row[: len(values)] = values
    return np.tile(row, (SIZE[0], 1))


def write_json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def lines(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n", encoding="utf-8")


def categories(vocabulary: str) -> list[dict[str, Any]]:
    """The categories of an annotation file, last first."""
    return [
        {"id": c.id, "name": c.name, "isthing": int(c.is_thing is not False)}
        for c in reversed(load_vocabulary_file(vocabulary).classes)
    ]


def image(number: int | str, file_name: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": file_name, "height": SIZE[0], "width": SIZE[1]} | more


def annotation(number: int, image_id: int | str, category: int, **more: Any) -> dict[str, Any]:
    box = [1, 0, 2, 4]
    mask = [[1, 0, 3, 0, 3, 4, 1, 4]]
    row = {"id": number, "image_id": image_id, "category_id": category, "bbox": box, "area": 8, "iscrowd": 0}
    return row | {"segmentation": mask} | more
