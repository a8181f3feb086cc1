"""Each reader on a miniature of its official folder: what was written is what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ovperception.datasets.ade20k import ade20k_150, ade20k_150_panoptic, ade20k_847
from ovperception.datasets.cityscapes import cityscapes
from ovperception.datasets.coco_sets import coco_instances, coco_object, coco_panoptic, coco_stuff, ov_coco
from ovperception.datasets.lvis import lvis_v05, lvis_v1
from ovperception.datasets.mapillary import mapillary, mapillary_panoptic
from ovperception.datasets.objects365 import objects365
from ovperception.datasets.pascal import pascal_context, pascal_voc, voc_20b_of_context
from ovperception.datasets.samples import IGNORE, Dataset, samples
from ovperception.errors import InvalidDataset, MissingFile
from tests.ovperception.datasets.layouts import (
    SIZE,
    annotation,
    categories,
    columns,
    id_map,
    image,
    label_map,
    lines,
    picture,
    write_json,
)


def first_row(dataset: Dataset, index: int = 0) -> list[int]:
    labels = dataset.sample(index).labels()
    assert labels.shape == SIZE
    assert (labels == labels[0]).all()
    assert dataset.sample(index).image().shape == (*SIZE, 3)
    return labels[0].tolist()


def coco(root: Path) -> None:
    for number in (139, 285):
        picture(root / "val2017" / f"{number:012d}.jpg")
    data = {
        "images": [image(139, "000000000139.jpg"), image(285, "000000000285.jpg")],
        "annotations": [annotation(1, 139, 90), annotation(2, 139, 1), annotation(3, 285, 10)],
        "categories": categories("coco_80"),
    }
    write_json(root / "annotations" / "instances_val2017.json", data)


def test_coco_instances(tmp_path: Path) -> None:
    coco(tmp_path)
    dataset = coco_instances(tmp_path)
    assert (dataset.name, len(dataset), len(dataset.vocabulary)) == ("coco_2017_val", 2, 80)
    assert dataset.sample(0).instances().classes.tolist() == [79, 0]
    assert dataset.sample(0).instances().masks[0].area == 8


def test_ov_coco_drops_classes_and_pictures(tmp_path: Path) -> None:
    coco(tmp_path)
    dataset = ov_coco(tmp_path)
    assert len(dataset.vocabulary) == 65
    assert dataset.image_ids == (139,)  # 285 shows a traffic light only
    assert [dataset.vocabulary.names[c] for c in dataset.sample(0).instances().classes] == [
        "toothbrush",
        "person",
    ]


@pytest.mark.parametrize("folder", ["panoptic_val2017", "annotations/panoptic_val2017"])
def test_coco_panoptic(tmp_path: Path, folder: str) -> None:
    picture(tmp_path / "val2017" / "000000000139.jpg")
    id_map(tmp_path / folder / "000000000139.png", columns(0, 70000, 9, dtype=np.int32))
    segments = [
        {"id": 70000, "category_id": 1, "area": 4, "iscrowd": 0},
        {"id": 9, "category_id": 200, "area": 16, "iscrowd": 0},
    ]
    data = {
        "images": [image(139, "000000000139.jpg")],
        "annotations": [{"image_id": 139, "file_name": "000000000139.png", "segments_info": segments}],
        "categories": categories("coco_panoptic_133"),
    }
    write_json(tmp_path / "annotations" / "panoptic_val2017.json", data)
    dataset = coco_panoptic(tmp_path)
    assert first_row(dataset) == [IGNORE, 0, 132, 132, 132, 132]
    assert dataset.vocabulary.is_thing[0]
    assert not dataset.vocabulary.is_thing[132]
    assert len(dataset.sample(0).instances()) == 1


@pytest.mark.parametrize("folder", ["stuffthingmaps/val2017", "annotations/val2017"])
def test_coco_stuff_and_object(tmp_path: Path, folder: str) -> None:
    picture(tmp_path / "val2017" / "000000000139.jpg")
    label_map(tmp_path / folder / "000000000139.png", columns(0, 89, 91, 181, 255))
    dataset = coco_stuff(tmp_path)
    assert first_row(dataset) == [0, 79, 80, 170, IGNORE, IGNORE]
    assert [dataset.vocabulary.names[i] for i in (0, 79, 80, 170)] == [
        "person",
        "toothbrush",
        "banner",
        "wood",
    ]
    assert first_row(coco_object(tmp_path)) == [1, 80, 0, 0, 0, 0]


def lvis(root: Path, name: str, vocabulary: str) -> None:
    for folder in ("train2017", "val2017"):
        picture(root / folder / "000000000007.jpg")
    address = "http://images.cocodataset.org/{}/000000000007.jpg"
    data = {
        "images": [
            image(
                7, "COCO_val2014_000000000007.jpg", coco_url=address.format("train2017"), neg_category_ids=[3]
            ),
            image(
                8,
                "x",
                coco_url=address.format("val2017"),
                not_exhaustive_category_ids=[2],
                neg_category_ids=[],
            ),
        ],
        "annotations": [annotation(1, 8, 2)],
        "categories": categories(vocabulary),
    }
    write_json(root / name, data)


def test_lvis_v1_and_minival(tmp_path: Path) -> None:
    lvis(tmp_path, "annotations/lvis_v1_val.json", "lvis_v1_1203")
    dataset = lvis_v1(tmp_path)
    assert (len(dataset), len(dataset.vocabulary)) == (2, 1203)
    assert [s.file_name for s in samples(dataset)] == [
        "train2017/000000000007.jpg",
        "val2017/000000000007.jpg",
    ]
    assert dataset.sample(0).image().shape == (*SIZE, 3)
    assert dataset.sample(0).instances().negative == (2,)
    minival = lvis_v1(tmp_path, "minival")
    assert minival.image_ids == (8,)
    found = minival.sample(0).instances()
    assert (found.classes.tolist(), found.not_exhaustive) == ([1], (1,))


def test_lvis_v05(tmp_path: Path) -> None:
    lvis(tmp_path, "lvis_v0.5_val.json", "lvis_v0.5_1230")
    assert len(lvis_v05(tmp_path).vocabulary) == 1230


def test_the_official_lvis_sample(shared_dir: Path, tmp_path: Path) -> None:
    path = shared_dir / "eval/data/lvis-dataset__lvis-api/data/lvis_val_100.json"
    if not path.exists():
        pytest.skip(f"no sample at {path}")
    (tmp_path / "lvis_v0.5_val.json").symlink_to(path)
    dataset = lvis_v05(tmp_path)
    found = [sample.instances() for sample in samples(dataset)]
    assert (len(dataset), sum(map(len, found)), sum(not len(f) for f in found)) == (100, 977, 7)
    assert all(mask.area > 0 for f in found for mask in f.masks)


def test_objects365_by_release(tmp_path: Path) -> None:
    picture(tmp_path / "val" / "a.jpg")
    data = {
        "images": [image(1, "a.jpg")],
        "annotations": [annotation(1, 1, 365, segmentation=None)],
        "categories": categories("objects365_365"),
    }
    write_json(tmp_path / "annotations" / "zhiyuan_objv2_val.json", data)
    dataset = objects365(tmp_path)
    assert dataset.sample(0).instances().classes.tolist() == [364]
    assert not dataset.has_masks
    data["categories"] = [{"id": 365, "name": "human"}, {"id": 4, "name": "Person"}]
    write_json(tmp_path / "annotations" / "objects365_val.json", data)
    assert objects365(tmp_path, "v1").vocabulary.names == ("Person", "human")
    write_json(tmp_path / "annotations" / "zhiyuan_objv2_val.json", data)
    with pytest.raises(InvalidDataset, match="in another way"):
        objects365(tmp_path)


def ade(root: Path) -> None:
    picture(root / "images" / "validation" / "ADE_val_00000001.jpg")
    # other, wall (stuff), bed (the first thing), cabinet labelled but its pixels belong to an instance below
    label_map(root / "annotations" / "validation" / "ADE_val_00000001.png", columns(0, 1, 1, 8, 8, 150))


def test_ade20k_150(tmp_path: Path) -> None:
    ade(tmp_path / "ADEChallengeData2016")
    for root in (tmp_path, tmp_path / "ADEChallengeData2016"):
        dataset = ade20k_150(root)
        assert first_row(dataset) == [IGNORE, 0, 0, 7, 7, 149]
        assert dataset.vocabulary.names[0] == "wall"
        assert dataset.truths == {"labels"}
        assert dataset.sample(0).image_id == "ADE_val_00000001"


def test_ade20k_panoptic_as_it_is_prepared(tmp_path: Path) -> None:
    ade(tmp_path)
    packed = columns(0, 0, 1 + 256 * 3, 1 + 256 * 3, 0, 100 + 256 * 4, dtype=np.int32)
    id_map(tmp_path / "annotations_instance" / "validation" / "ADE_val_00000001.png", packed)
    dataset = ade20k_150_panoptic(tmp_path)
    assert dataset.truths == {"labels", "panoptic", "instances"}
    truth = dataset.sample(0).panoptic()
    classes = {s.id: s.class_id for s in truth.segments}
    # void, wall, then the bed pasted over wall and bed, a bed that no instance claims, the flag
    assert [classes.get(i, IGNORE) for i in truth.ids[0].tolist()] == [IGNORE, 0, 7, 7, IGNORE, 149]
    assert [s.area for s in truth.segments] == [4, 8, 4]
    found = dataset.sample(0).instances()
    assert found.classes.tolist() == [7, 149]
    assert found.boxes.tolist() == [[2, 0, 4, 4], [5, 0, 6, 4]]
    assert first_row(dataset) == [IGNORE, 0, 0, 7, 7, 149]
    id_map(tmp_path / "annotations_instance" / "validation" / "ADE_val_00000001.png", packed + 1)
    with pytest.raises(InvalidDataset, match="does not fit"):
        dataset.sample(0).panoptic()


def test_the_official_ade_samples(shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "eval/data/CSAILVision__sceneparsing/sampleData"
    if not folder.is_dir():
        pytest.skip(f"no sample at {folder}")
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "validation").symlink_to(folder / name)
    dataset = ade20k_150(tmp_path)
    assert len(dataset) == 3
    for sample in samples(dataset):
        labels = sample.labels()
        assert labels.shape == sample.image().shape[:2]
        assert labels.min() >= IGNORE
        assert labels.max() < 150


def test_ade20k_847(tmp_path: Path) -> None:
    root = tmp_path / "ADE20K_2021_17_01"
    picture(root / "images_detectron2" / "validation" / "a.jpg")
    values = columns(0, 300, 846, 65535, dtype=np.uint16)
    label_map(root / "annotations_detectron2" / "validation" / "a.tif", values)
    assert first_row(ade20k_847(tmp_path)) == [0, 300, 846, IGNORE, IGNORE, IGNORE]


def test_cityscapes(tmp_path: Path) -> None:
    picture(tmp_path / "leftImg8bit" / "val" / "ulm" / "ulm_000000_000019_leftImg8bit.png")
    stem = tmp_path / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine"
    # unlabeled, road, caravan (not judged), two cars, a crowd of bicycles
    label_map(Path(f"{stem}_labelIds.png"), columns(0, 7, 29, 26, 26, 33))
    instances = columns(0, 7, 29000, 26000, 26001, 33, dtype=np.uint16)
    label_map(Path(f"{stem}_instanceIds.png"), instances)
    dataset = cityscapes(tmp_path)
    assert dataset.sample(0).image_id == "ulm/ulm_000000_000019"
    assert first_row(dataset) == [IGNORE, 0, IGNORE, 13, 13, 18]
    truth = dataset.sample(0).panoptic()
    assert [(s.id, s.class_id, s.is_crowd) for s in truth.segments] == [
        (7, 0, False),
        (33, 18, True),
        (26000, 13, False),
        (26001, 13, False),
    ]
    assert truth.ids[0].tolist() == [0, 7, 0, 26000, 26001, 33]
    found = dataset.sample(0).instances()
    assert (found.classes.tolist(), found.crowd.tolist()) == ([18, 13, 13], [True, False, False])


def test_mapillary(tmp_path: Path) -> None:
    root = tmp_path / "validation"
    picture(root / "images" / "x.jpg")
    label_map(root / "labels" / "x.png", columns(0, 64, 65))
    dataset = mapillary(tmp_path)
    assert first_row(dataset) == [0, 64, IGNORE, IGNORE, IGNORE, IGNORE]
    assert dataset.vocabulary.names[0] == "Bird"
    id_map(root / "panoptic" / "x.png", columns(0, 5, dtype=np.int32))
    data = {
        "images": [image("x", "x.jpg")],
        "annotations": [
            {
                "image_id": "x",
                "file_name": "x.png",
                "segments_info": [{"id": 5, "category_id": 1, "area": 20}],
            }
        ],
        "categories": [*categories("mapillary_65")],
    }
    write_json(root / "panoptic" / "panoptic_2018.json", data)
    assert first_row(mapillary_panoptic(tmp_path)) == [IGNORE, 0, 0, 0, 0, 0]


def voc(root: Path) -> None:
    picture(root / "JPEGImages" / "2007_000033.jpg")
    label_map(root / "SegmentationClass" / "2007_000033.png", columns(0, 1, 20, 255))
    lines(root / "ImageSets" / "Segmentation" / "val.txt", "2007_000033")


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("20", [IGNORE, 0, 19, IGNORE, IGNORE, IGNORE]),
        ("21", [0, 1, 20, IGNORE, IGNORE, IGNORE]),
        ("20b", [20, 0, 19, IGNORE, IGNORE, IGNORE]),
    ],
)
def test_pascal_voc(tmp_path: Path, form: str, row: list[int]) -> None:
    voc(tmp_path / "VOCdevkit" / "VOC2012")
    for root in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2012"):
        dataset = pascal_voc(root, form)
        assert first_row(dataset) == row
        assert len(dataset.vocabulary) == int(form[:2]) + form.endswith("b")


def test_context_words_stand_for_voc_and_background() -> None:
    table = voc_20b_of_context()
    assert len(table) == 59
    assert sorted(c for c in table if c < 20) == list(range(20))
    assert table[0] == 0  # aeroplane
    assert table[1] == 20  # bag


def test_pascal_context_as_prepared(tmp_path: Path) -> None:
    root = tmp_path / "pascal_ctx_d2"
    picture(root / "images" / "validation" / "a.jpg")
    label_map(root / "annotations_ctx59" / "validation" / "a.png", columns(0, 58, 255))
    values = columns(0, 458, 65535, dtype=np.uint16)
    label_map(root / "annotations_ctx459" / "validation" / "a.tif", values)
    assert first_row(pascal_context(tmp_path, "59")) == [0, 58, IGNORE, IGNORE, IGNORE, IGNORE]
    assert first_row(pascal_context(tmp_path, "60")) == [1, 59, 0, 0, 0, 0]
    assert first_row(pascal_context(tmp_path, "459")) == [0, 458, IGNORE, IGNORE, IGNORE, IGNORE]


def test_pascal_context_as_mmsegmentation_has_it(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2010"
    picture(root / "JPEGImages" / "a.jpg")
    lines(root / "ImageSets" / "SegmentationContext" / "val.txt", "a")
    label_map(root / "SegmentationClassContext" / "a.png", columns(0, 1, 59))
    assert first_row(pascal_context(tmp_path, "59")) == [IGNORE, 0, 58, 58, 58, 58]
    assert first_row(pascal_context(tmp_path, "60")) == [0, 1, 59, 59, 59, 59]
    matlab = pytest.importorskip("scipy.io")
    (root / "trainval").mkdir()
    matlab.savemat(root / "trainval" / "a.mat", {"LabelMap": columns(0, 1, 459, dtype=np.uint16)})
    assert first_row(pascal_context(tmp_path, "459")) == [IGNORE, 0, 458, 458, 458, 458]


READERS = [
    (coco_instances, "val2017", "cocodataset.org"),
    (coco_panoptic, "panoptic_val2017", "cocodataset.org"),
    (coco_stuff, "stuffthingmaps", "cocostuff"),
    (lvis_v1, "lvis_v1_val.json", "lvisdataset.org"),
    (objects365, "zhiyuan_objv2_val.json", "objects365.org"),
    (ade20k_150, "annotations", "sceneparsing"),
    (ade20k_847, "annotations_detectron2", "ADE20K"),
    (cityscapes, "gtFine", "cityscapes-dataset.com"),
    (mapillary, "validation", "mapillary.com"),
    (pascal_voc, "VOC2012", "host.robots.ox.ac.uk"),
    (pascal_context, "pascal_ctx_d2", "pascal-context"),
]


@pytest.mark.parametrize(("reader", "path", "home"), READERS)
def test_what_is_missing_is_named_with_its_home(tmp_path: Path, reader: object, path: str, home: str) -> None:
    with pytest.raises(MissingFile) as caught:
        reader(tmp_path)  # type: ignore[operator]
    assert path in caught.value.expected
    assert home in caught.value.mend
    assert "Nothing is downloaded" in caught.value.mend
