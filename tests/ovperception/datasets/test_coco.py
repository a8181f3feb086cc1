"""COCO-format files read back exactly, and every fault named or counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovperception.datasets.categories import Classes, builtin_classes
from ovperception.datasets.coco import coco_dataset
from ovperception.datasets.samples import Dataset, samples
from ovperception.errors import InvalidDataset, InvalidParameter, MissingFile, Unsupported
from ovperception.images import save_image
from ovperception.rle import RLE
from ovperception.vocabulary import Vocabulary

SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]


def small() -> dict[str, Any]:
    """Two pictures, three objects; categories and annotations out of order."""
    mask = np.zeros((8, 10), np.uint8)
    mask[3:6, 4:9] = 1
    runs = RLE.encode(mask).to_coco()
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "height": 8, "width": 10},
            {"id": 3, "file_name": "sub/a.png", "height": 6, "width": 12},
        ],
        "annotations": [
            row(11, 3, 40, [1, 2, 3, 4], segmentation=[[1, 2, 4, 2, 4, 6, 1, 6]]),
            row(12, 7, 40, [2, 1, 4, 4], segmentation=[SQUARE]),
            row(5, 7, 2, [4, 3, 5, 3], segmentation=runs, iscrowd=1, area=15),
        ],
        "categories": [{"id": 40, "name": "traffic_light"}, {"id": 2, "name": "taxi"}],
    }


def row(number: int, image: int, category: int, box: list[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": box} | more


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    save_image(tmp_path / "b.png", np.full((8, 10, 3), 7, np.uint8))
    save_image(tmp_path / "sub" / "a.png", np.full((6, 12, 3), 9, np.uint8))
    return tmp_path


def write(folder: Path, data: object) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_what_is_written_is_read(folder: Path) -> None:
    dataset = coco_dataset(write(folder, small()), folder)
    assert isinstance(dataset, Dataset)
    assert dataset.vocabulary.names == ("taxi", "traffic_light")
    assert dataset.vocabulary.texts == ("taxi", "traffic light")
    assert dataset.category_ids == (2, 40)
    assert (len(dataset), dataset.image_ids, dataset.name) == (2, (7, 3), "annotations")
    first, second = samples(dataset)
    assert (first.image_id, first.file_name, first.size) == (7, "b.png", (8, 10))
    assert np.all(first.image() == 7)
    assert np.all(second.image() == 9)
    found = first.instances()
    np.testing.assert_array_equal(found.boxes, [[2, 1, 6, 5], [4, 3, 9, 6]])
    assert found.classes.tolist() == [1, 0]
    assert found.crowd.tolist() == [False, True]
    assert found.areas.tolist() == [16, 15]
    assert found.ids.tolist() == [12, 5]
    assert [mask.area for mask in found.masks] == [16, 15]
    assert second.instances().ids.tolist() == [11]
    assert not dataset.problems


def test_a_sample_says_what_it_has_not(folder: Path) -> None:
    sample = coco_dataset(write(folder, small()), folder).sample(0)
    with pytest.raises(Unsupported, match="without panoptic"):
        sample.panoptic()
    with pytest.raises(InvalidParameter, match="0 to 1"):
        coco_dataset(write(folder, small()), folder).sample(2)


def test_boxes_without_masks(folder: Path) -> None:
    data = small()
    for annotation in data["annotations"]:
        del annotation["segmentation"]
    dataset = coco_dataset(write(folder, data), folder)
    assert not dataset.has_masks
    with pytest.raises(Unsupported, match="no masks"):
        _ = dataset.sample(0).instances().masks


def test_known_words_by_name_and_synonym(folder: Path) -> None:
    words = Vocabulary.from_words(["stoplight|Traffic Light", "taxi"])
    dataset = coco_dataset(write(folder, small()), folder, known=words)
    assert dataset.category_ids == (40, 2)
    assert dataset.sample(0).instances().classes.tolist() == [0, 1]
    with pytest.raises(InvalidDataset, match="no category for the class 'bus'"):
        coco_dataset(write(folder, small()), folder, known=Vocabulary.from_words(["bus"]))


def test_other_classes_are_refused_or_dropped(folder: Path) -> None:
    path, words = write(folder, small()), Vocabulary.from_words(["taxi"])
    with pytest.raises(InvalidDataset, match=r"40 \(traffic_light\)"):
        coco_dataset(path, folder, known=words)
    dropped = coco_dataset(path, folder, known=words, others="drop")
    assert [len(s.instances()) for s in samples(dropped)] == [1, 0]
    kept = coco_dataset(path, folder, known=words, others="drop", keep="with_objects")
    assert kept.image_ids == (7,)
    assert kept.sample(0).instances().ids.tolist() == [5]


def test_ids_of_another_release_are_refused(folder: Path) -> None:
    words = Vocabulary.from_words(["taxi", "traffic light"])
    with pytest.raises(InvalidDataset, match="Expected id 40 for 'taxi'"):
        coco_dataset(write(folder, small()), folder, known=Classes(vocabulary=words, category_ids=(40, 2)))


FAULTS = {
    "an annotation id that is there twice": row(12, 7, 40, [1, 1, 1, 1]),
    "an annotation of an image that is not there": row(99, 8, 40, [1, 1, 1, 1]),
    "an annotation of a category that is not there": row(99, 7, 41, [1, 1, 1, 1]),
    "an annotation of an image that is not": row(99, 7, 40, [1, 1, 1, 1], image_id=[7]),
    "an annotation of a category that is not": row(99, 7, 40, [1, 1, 1, 1], category_id={}),
    "an annotation without an id": {"image_id": 7, "category_id": 2, "bbox": [1, 1, 1, 1]},
    "a box that is none": row(99, 7, 40, [1, 1, float("nan"), 1]),
    "an area that is none": row(99, 7, 40, [1, 1, 1, 1], area=-3),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_stop_or_are_counted(folder: Path, fault: str) -> None:
    data = small()
    data["annotations"].append(FAULTS[fault])
    path = write(folder, data)
    with pytest.raises(InvalidDataset, match=rf"annotations\.json: annotations\[3\]: {fault}"):
        coco_dataset(path, folder)
    dataset = coco_dataset(path, folder, on_problem="skip")
    (line,) = dataset.problems.lines()
    assert line.startswith(f"1 x {fault}")
    assert line.endswith(f": annotations[3] of {path}")
    assert sum(len(s.instances()) for s in samples(dataset)) == 3


@pytest.mark.parametrize("box", [None, [1, 2, 3], [1, 2, -3, 4], "1234", [1, 2, 3, None], [1, 2, 3, 1e999]])
def test_boxes_that_are_none(folder: Path, box: object) -> None:
    data = small()
    data["annotations"][0]["bbox"] = box
    with pytest.raises(InvalidDataset, match="a box that is none"):
        coco_dataset(write(folder, data), folder)


def test_faults_of_images(folder: Path) -> None:
    data = small()
    data["images"] += [
        {"id": 7, "file_name": "c.png", "height": 1, "width": 1},
        {"id": 8, "file_name": "d.png"},
    ]
    with pytest.raises(InvalidDataset, match=r"images\[2\]: an image id that is there twice"):
        coco_dataset(write(folder, data), folder)
    dataset = coco_dataset(write(folder, data), folder, on_problem="skip")
    assert dataset.image_ids == (7, 3)
    assert sum(dataset.problems.counts.values()) == 2


def test_oddities_are_noted_and_used(folder: Path) -> None:
    data = small()
    data["annotations"] += [
        row(0, 7, 2, [1, 1, 2, 2], segmentation=[SQUARE]),
        row(20, 7, 2, [8, 1, 5, 2], segmentation=[]),
    ]
    dataset = coco_dataset(write(folder, data), folder)
    assert dataset.problems.counts == {
        "annotation id 0, which pycocotools loses": 1,
        "a box that reaches beyond its picture": 1,
        "an object without a mask of its picture's size": 1,
    }
    assert dataset.problems.examples["a box that reaches beyond its picture"] == [
        f"annotation 20 of {dataset.annotations}"
    ]
    found = dataset.sample(0).instances()
    assert found.ids.tolist() == [12, 5, 0, 20]
    with pytest.raises(InvalidDataset, match=r"annotation 20 of image 7 \(.*\) of .*\.json"):
        _ = found.masks


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4]], "neither polygons nor"),
        ([[1, 2, 3, 4, 5, "x"]], "neither polygons nor"),
        ({"size": [6, 12], "counts": [72]}, "another size"),
        ({"size": [8, 10], "counts": [79]}, "do not fill"),
        ({"counts": [80]}, "not COCO run-length"),
    ],
)
def test_broken_masks(folder: Path, segmentation: object, message: str) -> None:
    data = small()
    data["annotations"][1]["segmentation"] = segmentation
    dataset = coco_dataset(write(folder, data), folder)
    with pytest.raises(InvalidDataset, match=f"annotation 12 of image 7.*{message}"):
        _ = dataset.sample(0).instances().masks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [{"id"', "breaks off"),
        ("[1, 2]", "no JSON object"),
        ("{}", "no list of categories"),
        ('{"categories": {}}', "no list of categories"),
        ('{"categories": [3]}', "an entry that is no object"),
        ('{"categories": []}', "no categories"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "two categories one id"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}', "categories of one name"),
        ('{"categories": [{"id": "1", "name": "a"}]}', "without id or name"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": [], "annotations": []}', "no images"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InvalidDataset, match=message):
        coco_dataset(path, tmp_path)


def test_missing_files_are_named(folder: Path) -> None:
    write(folder, small())
    with pytest.raises(MissingFile, match=r"nothing.json.*annotations.json"):
        coco_dataset(folder / "nothing.json", folder)
    with pytest.raises(MissingFile, match="nowhere"):
        coco_dataset(write(folder, small()), folder / "nowhere")
    (folder / "b.png").unlink()
    with pytest.raises(MissingFile, match=r"b\.png"):
        coco_dataset(write(folder, small()), folder).sample(0).image()


def test_a_picture_of_another_size(folder: Path) -> None:
    save_image(folder / "b.png", np.zeros((8, 11, 3), np.uint8))
    with pytest.raises(InvalidDataset, match="another size"):
        coco_dataset(write(folder, small()), folder).sample(0).image()


def test_lvis_lists_and_addresses(folder: Path) -> None:
    data = small()
    data["images"][0] |= {"neg_category_ids": [2], "not_exhaustive_category_ids": [40, 1000]}
    data["images"][1] = {"id": 3, "coco_url": "http://x/sub/a.png", "height": 6, "width": 12}
    first, second = samples(coco_dataset(write(folder, data), folder))
    assert first.instances().negative == (0,)
    assert first.instances().not_exhaustive == (1,)
    assert second.file_name == "sub/a.png"
    assert second.image().shape == (6, 12, 3)


def test_the_official_sample(shared_dir: Path, tmp_path: Path) -> None:
    """100 pictures of val2014: 839 objects, 9 of them crowds; each mask as pycocotools makes it."""
    path = (
        shared_dir / "eval/data/MiXaiLL76__faster_coco_eval/tests/dataset/cocoapi/instances_val2014_100.json"
    )
    if not path.exists():
        pytest.skip(f"no sample at {path}")
    codec = pytest.importorskip("pycocotools.mask")
    dataset = coco_dataset(path, tmp_path, known=builtin_classes("coco_80"))
    rows = {a["id"]: a for a in json.loads(path.read_text())["annotations"]}
    count = crowds = 0
    for sample in samples(dataset):
        found = sample.instances()
        count, crowds = count + len(found), crowds + int(found.crowd.sum())
        for number, box, mask in zip(found.ids, found.boxes, found.masks, strict=True):
            segmentation = rows[number]["segmentation"]
            x, y, width, height = rows[number]["bbox"]
            assert box.tolist() == [x, y, x + width, y + height]
            expected = codec.frPyObjects(segmentation, *sample.size)
            expected = codec.merge(expected) if isinstance(segmentation, list) else expected
            assert mask.counts == expected["counts"]
    assert (count, crowds) == (839, 9)
