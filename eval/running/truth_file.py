"""The annotation file that detections are judged against: the data set's own, or one made of its objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eval.metrics import Category, cityscapes_void
from eval.running.journal import Record
from ovperception.datasets.coco import CocoDataset
from ovperception.datasets.samples import Dataset
from ovperception.datasets.scene_sets import DrawnScenes
from ovperception.datasets.scenes.annotation_files import lvis_negatives
from ovperception.datasets.scenes.categories import load_categories

__all__ = ["TRUTH", "annotation_file", "drawn_truth"]

TRUTH = "truth.json"
"""Name under OUT of a file that was made."""


def annotation_file(dataset: Dataset) -> Path | None:
    """The file as its makers published it; None where there is none, or its images have no numbers."""
    if not isinstance(dataset, CocoDataset) or dataset.problems.on_problem == "skip":
        return None
    numbered = all(isinstance(image_id, int) for image_id in dataset.image_ids)
    return dataset.annotations if numbered else None


def drawn_truth(
    records: Iterable[Record],
    categories: Iterable[Category],
    dataset: Dataset,
    *,
    seed: int,
    void: bool = False,
) -> tuple[dict[str, Any], dict[int, int]]:
    """The objects that the records hold as a COCO file, LVIS's lists included, and the image ids by index.

    Args:
        records: in the order of the images.
        categories: that are judged.
        dataset: the records are of.
        seed: of the classes that drawn scenes are judged to lack, as in their export.
        void: add what is not judged in each image; of Cityscapes, beside its labels.
    """
    drawn = isinstance(dataset, DrawnScenes)
    frequency = {c.id: c.frequency for c in load_categories() if c.is_thing} if drawn else {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids: dict[int, int] = {}
    for record in records:
        number = record["id"] if isinstance(record["id"], int) else record["i"] + 1
        ids[record["i"]] = number
        present = [row["category_id"] for row in record["truth"]]
        height, width = record["size"]
        images.append(
            {
                "id": number,
                "file_name": record["name"],
                "height": height,
                "width": width,
                "neg_category_ids": lvis_negatives(number, present, seed) if drawn else record["negative"],
                "not_exhaustive_category_ids": record["not_exhaustive"],
            }
        )
        if void:
            assert dataset.annotations is not None
            images[-1]["void"] = cityscapes_void(dataset.annotations, record["id"])
        for row in record["truth"]:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **row})
    return {
        "images": images,
        "annotations": annotations,
        "categories": [_category(category, frequency) for category in categories],
    }, ids


def _category(category: Category, frequency: Mapping[int, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": category.id, "name": category.name}
    return row | ({"frequency": frequency[category.id]} if category.id in frequency else {})
