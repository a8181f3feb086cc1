"""COCO panoptic files: segments, classes per pixel and instances from one PNG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ovperception.datasets.categories import builtin_classes
from ovperception.datasets.panoptic_files import panoptic_dataset
from ovperception.datasets.samples import IGNORE, Dataset, samples
from ovperception.errors import InvalidDataset, MissingFile
from ovperception.images import save_image

IDS = np.array([[0, 7, 7, 70000], [300, 300, 7, 70000]], np.int32)


def segment(number: int, category: int, area: int, crowd: int = 0) -> dict[str, int]:
    return {"id": number, "category_id": category, "area": area, "iscrowd": crowd}


def small() -> dict[str, Any]:
    return {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 2, "width": 4}],
        "annotations": [
            {
                "image_id": 5,
                "file_name": "a.png",
                "segments_info": [segment(70000, 1, 2, 1), segment(7, 1, 3), segment(300, 9, 2)],
            }
        ],
        "categories": [{"id": 9, "name": "sky", "isthing": 0}, {"id": 1, "name": "taxi", "isthing": 1}],
    }


def write(folder: Path, data: object) -> Path:
    colours = np.stack([IDS >> 16, IDS >> 8 & 255, IDS & 255], axis=-1).astype(np.uint8)  # BGR on disk
    cv2.imwrite(str(folder / "a.png"), colours)
    save_image(folder / "a.jpg", np.zeros((2, 4, 3), np.uint8))
    path = folder / "panoptic.json"
    path.write_text(json.dumps(data))
    return path


def test_three_truths_of_one_file(tmp_path: Path) -> None:
    dataset = panoptic_dataset(write(tmp_path, small()), tmp_path, tmp_path)
    assert isinstance(dataset, Dataset)
    assert dataset.vocabulary.names == ("taxi", "sky")
    assert dataset.vocabulary.is_thing == (True, False)
    assert dataset.category_ids == (1, 9)
    sample = dataset.sample(0)
    assert sample.image().shape == (2, 4, 3)
    truth = sample.panoptic()
    np.testing.assert_array_equal(truth.ids, IDS)
    assert [(s.id, s.class_id, s.is_crowd, s.area) for s in truth.segments] == [
        (70000, 0, True, 2),
        (7, 0, False, 3),
        (300, 1, False, 2),
    ]
    assert sample.labels().tolist() == [[IGNORE, 0, 0, 0], [1, 1, 0, 0]]
    things = sample.instances()
    assert things.boxes.tolist() == [[3, 0, 4, 2], [1, 0, 3, 2]]
    assert things.crowd.tolist() == [True, False]
    assert [m.area for m in things.masks] == things.areas.tolist() == [2, 3]
    np.testing.assert_array_equal(things.masks[1].decode(), IDS == 7)


@pytest.mark.parametrize("change", ["drop", "add"])
def test_ids_must_be_in_both(tmp_path: Path, change: str) -> None:
    data = small()
    segments = data["annotations"][0]["segments_info"]
    if change == "drop":
        segments.pop()
    else:
        segments.append(segment(8, 1, 1))
    dataset = panoptic_dataset(write(tmp_path, data), tmp_path, tmp_path)
    with pytest.raises(InvalidDataset, match="300" if change == "drop" else r"list alone: \[8\]"):
        dataset.sample(0).panoptic()


def test_broken_annotations(tmp_path: Path) -> None:
    data = small()
    data["annotations"][0]["segments_info"][0]["category_id"] = 2
    with pytest.raises(InvalidDataset, match=r"segments_info\[0\] is no segment of a known category"):
        panoptic_dataset(write(tmp_path, data), tmp_path, tmp_path)
    data = small()
    data["annotations"][0]["image_id"] = [6]
    with pytest.raises(InvalidDataset, match="an image that is not there"):
        panoptic_dataset(write(tmp_path, data), tmp_path, tmp_path)
    data = small()
    data["images"][0]["width"] = 5
    with pytest.raises(InvalidDataset, match="another size"):
        panoptic_dataset(write(tmp_path, data), tmp_path, tmp_path).sample(0).panoptic()
    data = small()
    data["annotations"][0]["file_name"] = "b.png"
    with pytest.raises(MissingFile, match=r"b\.png"):
        panoptic_dataset(write(tmp_path, data), tmp_path, tmp_path).sample(0).labels()


def test_the_official_sample(shared_dir: Path) -> None:
    """Two real pictures: what the official converter makes of the same files, 50 segments in all."""
    folder = shared_dir / "eval/data/cocodataset__panopticapi/sample_data"
    if not folder.is_dir():
        pytest.skip(f"no sample at {folder}")
    dataset = panoptic_dataset(
        folder / "panoptic_examples.json",
        folder / "panoptic_examples",
        folder / "input_images",
        known=builtin_classes("coco_panoptic_133"),
    )
    rows = json.loads((folder / "panoptic_coco_detection_format.json").read_text())
    rows = rows["annotations"] if isinstance(rows, dict) else rows
    segments = area = 0
    for sample in samples(dataset):
        truth = sample.panoptic()
        segments += len(truth.segments)
        counts = dict(zip(*np.unique(truth.ids, return_counts=True), strict=True))
        assert all(counts[s.id] == s.area for s in truth.segments)
        area += sum(s.area for s in truth.segments)
        assert sample.image().shape[:2] == truth.ids.shape
        masks = {m["segmentation"]["counts"] for m in rows if m["image_id"] == sample.image_id}
        assert {m.counts.decode() for m in sample.instances().masks} <= masks
    assert (segments, area) == (50, 493779)
