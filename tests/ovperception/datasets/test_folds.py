"""The zero-shot folds: which classes, which pictures, and masks of one class at a time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ovperception.datasets.folds import FOLDS, coco_20i, coco_20i_classes, fss_1000, pascal_5i
from ovperception.datasets.samples import IGNORE, Dataset, samples
from ovperception.errors import InvalidParameter, MissingFile
from tests.ovperception.datasets.layouts import (
    annotation,
    categories,
    columns,
    image,
    label_map,
    picture,
    write_json,
)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    picture(tmp_path / "VOC2012" / "JPEGImages" / "2007_000033.jpg")
    (tmp_path / "VOC2012" / "SegmentationClassAug").mkdir()
    return tmp_path


@pytest.mark.parametrize(("fold", "count"), [(0, 346), (1, 451), (2, 725), (3, 346)])
def test_pascal_folds(voc: Path, fold: int, count: int) -> None:
    folder = voc / "VOC2012" / "JPEGImages"
    for first in ("2007_000452", "2007_000129", "2007_000042"):
        picture(folder / f"{first}.jpg")
    dataset = pascal_5i(voc, fold)
    assert isinstance(dataset, Dataset)
    assert len(dataset) == count
    assert dataset.category_ids == tuple(range(5 * fold + 1, 5 * fold + 6))
    asked = Counter(sample.asked for sample in samples(dataset))
    assert sorted(asked) == [(i,) for i in range(5)]


def test_a_pascal_sample_asks_for_one_class(voc: Path) -> None:
    """The first line of fold 0 is an aeroplane; the picture's other classes are "others"."""
    label_map(voc / "VOC2012" / "SegmentationClassAug" / "2007_000033.png", columns(0, 1, 2, 255))
    sample = pascal_5i(voc, 0).sample(0)
    assert (sample.image_id, sample.asked) == ("2007_000033", (0,))
    assert sample.labels()[0].tolist() == [5, 0, 5, IGNORE, IGNORE, IGNORE]
    assert sample.image().shape == (4, 6, 3)


def test_coco_folds_part_the_classes() -> None:
    parts = [set(coco_20i_classes(fold).category_ids) for fold in FOLDS]
    assert all(len(part) == 20 for part in parts)
    assert len(set.union(*parts)) == 80
    assert coco_20i_classes(0).vocabulary.names[:3] == ("person", "airplane", "boat")
    with pytest.raises(InvalidParameter, match="0, 1, 2 or 3"):
        coco_20i_classes(4)  # type: ignore[arg-type]


def test_coco_pairs_and_masks(tmp_path: Path) -> None:
    home = tmp_path / "COCO2014"
    for number in (1, 2):
        picture(home / "val2014" / f"{number}.jpg")
    crowd = {"iscrowd": 1, "segmentation": {"size": [4, 6], "counts": [20, 4]}}
    data = {
        "images": [image(1, "1.jpg"), image(2, "2.jpg")],
        "annotations": [
            annotation(1, 1, 1),
            annotation(2, 1, 1, segmentation=[[3, 0, 4, 0, 4, 4, 3, 4]]),
            annotation(3, 1, 5),
            annotation(4, 1, 2),  # a bicycle is of fold 1
            annotation(5, 2, 5, **crowd),
        ],
        "categories": categories("coco_80"),
    }
    write_json(home / "annotations" / "instances_val2014.json", data)
    dataset = coco_20i(tmp_path, 0)
    assert [(s.image_id, s.asked) for s in samples(dataset)] == [(1, (0,)), (1, (1,))]
    assert dataset.sample(0).labels()[0].tolist() == [20, 0, 0, 0, 20, 20]
    assert dataset.sample(1).labels()[0].tolist() == [20, 1, 1, 20, 20, 20]
    drawn = [s.asked for s in samples(coco_20i(tmp_path, 0, episodes=50))]
    assert drawn == [s.asked for s in samples(coco_20i(tmp_path, 0, episodes=50))]
    assert set(drawn) == {(0,), (1,)}


def test_fss(tmp_path: Path) -> None:
    from ovperception.datasets.folds import _list

    names = _list("fss_1000")
    assert [len(names[s]) for s in ("train", "val", "test")] == [520, 240, 240]
    assert len(set(names["train"] + names["val"] + names["test"])) == 1000
    with pytest.raises(MissingFile, match="FSS-1000"):
        fss_1000(tmp_path / "FSS-1000")
    home = tmp_path / "FSS-1000"
    source = home / "1.png"
    label_map(source, columns(0, 127, 128, 255))
    for name in names["test"]:
        (home / name).mkdir()
        for number in range(1, 11):
            (home / name / f"{number}.png").hardlink_to(source)
    picture(home / names["test"][0] / "1.jpg")
    dataset = fss_1000(tmp_path)
    assert len(dataset) == 2400
    assert "american alligator" in dataset.vocabulary.texts
    assert dataset.category_ids[0] == 760
    sample = dataset.sample(0)
    assert (sample.image_id, sample.asked) == ("abe's_flyingfish/1", (0,))
    assert sample.labels()[0].tolist() == [240, 240, 0, 0, 0, 0]
    assert dataset.sample(2399).asked == (239,)
    assert np.all(sample.image() == sample.image()[0, 0, 0])
