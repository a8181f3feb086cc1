"""Answers: what they refuse, and what they become."""

import json
import sys

import cv2
import numpy as np
import pytest

from ovperception.errors import InvalidImage, InvalidParameter, InvalidRegions, MissingDependency, MissingFile
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, Segment, SemanticMap

SIZE = (20, 30)


def mask(top, left, bottom, right):
    return RLE.from_crop(np.ones((bottom - top, right - left), bool), top, left, SIZE)


def detections(with_masks=True, **changes):
    values = {
        "size": SIZE,
        "classes": ("taxi", "dog", "cat"),
        "boxes": np.float32([[2, 3, 12, 9], [0.1, 0, 4.5, 6], [10, 10, 20, 20]]),
        "scores": np.float32([0.9, 0.5, 0.25]),
        "class_ids": np.array([2, 0, 2]),
        "masks": (mask(3, 2, 9, 12), mask(0, 0, 6, 5), mask(10, 10, 20, 20)) if with_masks else None,
    }
    return Detections(**(values | changes))


def empty(masks):
    nothing = {"boxes": [], "scores": [], "class_ids": [], "masks": () if masks else None}
    return detections(**nothing)


def semantic(labels=((0, 0, 2), (-1, 2, 2)), classes=("sky", "sea", "sand"), **others):
    return SemanticMap(classes=tuple(classes), labels=np.array(labels, np.int32), **others)


def panoptic():
    ids = np.zeros((4, 6), np.int32)
    ids[:2] = 1
    ids[2:, 1:4] = 70_000
    segments = (
        Segment(id=1, class_id=0, score=0.75, area=12, is_thing=False),
        Segment(id=70_000, class_id=1, score=0.5, area=6, is_thing=True),
    )
    return PanopticMap(classes=("sky", "taxi"), ids=ids, segments=segments)


def test_length_and_names():
    assert len(detections()) == 3
    assert detections().names == ("cat", "taxi", "cat")


def test_numbers_are_converted_where_nothing_is_lost():
    result = detections(boxes=np.float64([[0, 0, 1, 1]] * 3), scores=[0.5, 0.5, 0.5], class_ids=[0, 1, 2])
    assert (result.boxes.dtype, result.scores.dtype) == (np.float32, np.float32)
    assert result.class_ids.dtype == np.int64
    boxes = np.zeros((3, 4), np.float32)
    assert detections(boxes=boxes).boxes is boxes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": None}, "scores"),
        ({"boxes": np.zeros((2, 4), np.float32)}, "boxes"),
        ({"boxes": np.zeros((3, 5), np.float32)}, "boxes"),
        ({"boxes": np.array([["a"] * 4] * 3)}, "boxes"),
        ({"class_ids": np.array([0, 1])}, "class_ids"),
        ({"class_ids": np.array([0.0, 1.0, 2.0])}, "class_ids"),
        ({"class_ids": np.array([0, 1, 3])}, "no class"),
        ({"class_ids": np.array([0, 1, -1])}, "no class"),
        ({"classes": ()}, "no class"),
        ({"masks": (mask(0, 0, 1, 1),)}, "masks"),
        ({"size": (30, 20)}, "masks"),
    ],
)
def test_detections_refuse(changes, message):
    with pytest.raises(InvalidRegions, match=message):
        detections(**changes)


@pytest.mark.parametrize(
    ("keep", "scores"),
    [
        (np.array([True, False, True]), [0.9, 0.25]),
        ([2, 0], [0.25, 0.9]),
        (np.array([-1]), [0.25]),
        (slice(1), [0.9]),
        ([], []),
        (np.zeros(3, bool), []),
    ],
)
def test_filter(keep, scores):
    kept = detections().filter(keep)
    np.testing.assert_array_equal(kept.scores, np.float32(scores))
    assert len(kept.masks) == len(kept.boxes) == len(kept.names) == len(scores)
    assert detections(False).filter(keep).masks is None


def test_filter_keeps_mask_and_box_together():
    kept = detections().filter(detections().scores < 0.4)
    np.testing.assert_array_equal(kept.masks[0].box, kept.boxes[0])


@pytest.mark.parametrize("keep", [[True], [3], [-4], [0.5], [[0]]])
def test_filter_refuses(keep):
    with pytest.raises(InvalidParameter):
        detections().filter(keep)


def test_to_coco_by_hand():
    results = detections().to_coco(image_id=7, category_ids=[10, 20, 30])
    assert results[0] == {
        "image_id": 7,
        "category_id": 30,
        "score": float(np.float32(0.9)),
        "bbox": [2.0, 3.0, 10.0, 6.0],
        "segmentation": mask(3, 2, 9, 12).to_coco(),
    }
    assert [r["category_id"] for r in results] == [30, 10, 30]
    assert "segmentation" not in detections(False).to_coco()[0]
    json.dumps(results)
    with pytest.raises(InvalidParameter, match="category"):
        detections().to_coco(category_ids=[1, 2])


def test_coco_reads_our_results(capsys):
    coco = pytest.importorskip("pycocotools.coco")
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": 7, "height": 20, "width": 30}],
        "annotations": [],
        "categories": [{"id": i, "name": str(i)} for i in (10, 20, 30)],
    }
    truth.createIndex()
    read = truth.loadRes(detections().to_coco(7, [10, 20, 30]))
    capsys.readouterr()
    assert [a["area"] for a in read.anns.values()][::2] == [60, 100]
    assert truth.annToRLE(read.anns[1]) == mask(3, 2, 9, 12).to_coco()


def test_to_json_is_short_and_exact():
    found = detections().to_json()["detections"]
    assert found[1] == {
        "class": "taxi",
        "score": 0.5,
        "box": [0.1, 0.0, 4.5, 6.0],
        "mask": mask(0, 0, 6, 5).to_coco(),
    }
    again = json.loads(json.dumps(found))
    np.testing.assert_array_equal(np.float32([d["box"] for d in again]), detections().boxes)
    assert RLE.from_coco(again[0]["mask"]) == detections().masks[0]
    assert "mask" not in detections(False).to_json()["detections"][0]


@pytest.mark.parametrize("masks", [True, False])
def test_to_supervision(masks):
    pytest.importorskip("supervision")
    theirs = detections(masks).to_supervision()
    assert len(theirs) == 3
    assert theirs["class_name"].tolist() == ["cat", "taxi", "cat"]
    np.testing.assert_array_equal(theirs.confidence, detections().scores)
    if masks:
        np.testing.assert_array_equal(theirs.mask[1], detections().masks[1].decode())
    assert len(theirs[theirs.confidence > 0.4]) == 2


def test_without_supervision(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependency, match="interop"):
        detections().to_supervision()


@pytest.mark.parametrize("masks", [True, False])
def test_empty_detections_work_everywhere(masks):
    result = empty(masks)
    assert len(result) == 0
    assert result.boxes.shape == (0, 4)
    assert result.names == ()
    assert len(result.filter(np.zeros(0, bool))) == len(result.filter([])) == 0
    assert result.to_coco() == []
    assert result.to_json() == {"detections": []}
    image = np.full((*SIZE, 3), 7, np.uint8)
    np.testing.assert_array_equal(result.draw(image), image)
    pytest.importorskip("supervision")
    assert len(result.to_supervision()) == 0


def test_no_classes_and_nothing_found():
    assert len(detections(classes=(), boxes=[], scores=[], class_ids=[], masks=())) == 0


def test_draw_wants_the_same_image():
    with pytest.raises(InvalidImage, match="asked about"):
        detections().draw(np.zeros((30, 20, 3), np.uint8))


def test_present():
    assert semantic().present == (0, 2)
    assert semantic([[-1, -1]]).present == ()
    assert semantic().size == (2, 3)
    for bad in ([[3]], [[-2]]):
        with pytest.raises(InvalidRegions, match="no class"):
            _ = semantic(bad).present


def test_semantic_png(tmp_path):
    semantic().save_png(tmp_path / "map.png")
    read = cv2.imread(str(tmp_path / "map.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, [[0, 0, 2], [255, 2, 2]])
    assert semantic().to_json(tmp_path / "map.png") == {
        "classes": ["sky", "sea", "sand"],
        "label_map": str(tmp_path / "map.png"),
    }


@pytest.mark.parametrize(("count", "dtype", "void"), [(255, np.uint8, 255), (256, np.uint16, 65535)])
def test_png_depth_follows_the_number_of_classes(tmp_path, count, dtype, void):
    semantic([[count - 1, -1]], [str(i) for i in range(count)]).save_png(tmp_path / "map.png")
    read = cv2.imread(str(tmp_path / "map.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, [[count - 1, void]])


def test_semantic_refuses(tmp_path):
    with pytest.raises(InvalidRegions, match="labels"):
        semantic(np.zeros((0, 4), np.int32))
    with pytest.raises(InvalidRegions, match="labels"):
        SemanticMap(classes=("a",), labels=np.zeros((2, 2)))
    with pytest.raises(InvalidRegions, match="scores"):
        semantic(scores=np.zeros((3, 2), np.float32))
    with pytest.raises(InvalidRegions, match="no class"):
        semantic([[9]]).save_png(tmp_path / "map.png")
    with pytest.raises(MissingFile):
        semantic().save_png(tmp_path / "none" / "map.png")


def test_panoptic_to_coco_by_hand():
    assert panoptic().to_coco(5, "5.png", [100, 200]) == {
        "image_id": 5,
        "file_name": "5.png",
        "segments_info": [
            {"id": 1, "category_id": 100, "area": 12, "bbox": [0, 0, 6, 2], "iscrowd": 0},
            {"id": 70_000, "category_id": 200, "area": 6, "bbox": [1, 2, 3, 2], "iscrowd": 0},
        ],
    }


def test_panoptic_png_is_cocos(tmp_path):
    panoptic().save_png(tmp_path / "ids.png")
    rgb = cv2.imread(str(tmp_path / "ids.png"), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    np.testing.assert_array_equal(rgb @ [1, 256, 65536], panoptic().ids)


def test_panoptic_to_json():
    result = panoptic().to_json("ids.png")
    assert result["id_map"] == "ids.png"
    assert result["segments"][1] == {"id": 70_000, "class": "taxi", "score": 0.5, "area": 6, "is_thing": True}
    json.dumps(result)


def test_empty_panoptic(tmp_path):
    nothing = PanopticMap(classes=(), ids=np.zeros(SIZE, np.int32), segments=())
    nothing.save_png(tmp_path / "ids.png")
    assert nothing.to_coco(1, "a.png")["segments_info"] == []
    assert nothing.to_json("a.png")["segments"] == []
    image = np.full((*SIZE, 3), 7, np.uint8)
    np.testing.assert_array_equal(nothing.draw(image), image)


@pytest.mark.parametrize(
    "segments",
    [
        [Segment(id=1, class_id=0, score=1, area=1, is_thing=True)] * 2,
        [Segment(id=0, class_id=0, score=1, area=1, is_thing=True)],
        [Segment(id=2**24, class_id=0, score=1, area=1, is_thing=True)],
        [Segment(id=1, class_id=1, score=1, area=1, is_thing=True)],
    ],
)
def test_panoptic_refuses(segments):
    with pytest.raises(InvalidRegions, match=r"[Ss]egment"):
        PanopticMap(classes=("a",), ids=np.zeros((2, 2), np.int32), segments=tuple(segments))


def test_panoptic_ids_beyond_three_bytes(tmp_path):
    too_high = PanopticMap(classes=(), ids=np.full((2, 2), 2**24, np.int32), segments=())
    with pytest.raises(InvalidRegions, match="three bytes"):
        too_high.save_png(tmp_path / "ids.png")
