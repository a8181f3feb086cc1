"""Results survive the way through other tools' files and objects, and those tools read them."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from eval.interop import from_supervision, read_detections, read_panoptic, write_detections, write_panoptic
from eval.metrics import score_coco, score_lvis, score_panoptic_files
from ovperception.errors import InvalidDataset, InvalidParameter
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, Segment

SIZE = (20, 30)
IDS = (7, 3)  # not in the order of the file
NAMES = ("taxi", "cat")


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    categories = [{"id": i, "name": n, "frequency": "f"} for i, n in sorted(zip(IDS, NAMES, strict=True))]
    boxes = [(1, 7, [2, 2, 10, 10]), (2, 3, [5, 5, 8, 8])]
    content = {
        "images": [
            {
                "id": i,
                "height": SIZE[0],
                "width": SIZE[1],
                "file_name": f"{i}.jpg",
                "neg_category_ids": [],
                "not_exhaustive_category_ids": [],
            }
            for i in (1, 2, 3)
        ],
        "categories": categories,
        "annotations": [
            {
                "id": k,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "segmentation": [
                    [
                        *(box[0], box[1], box[0] + box[2], box[1]),
                        *(box[0] + box[2], box[1] + box[3], box[0], box[1] + box[3]),
                    ]
                ],
            }
            for k, (image, category, box) in enumerate(boxes, start=1)
        ],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    return path


def found(box: tuple[int, int, int, int], class_id: int, score: float = 0.75) -> Detections:
    mask = np.zeros(SIZE, np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return Detections(
        size=SIZE,
        classes=NAMES,
        boxes=np.array([box, (0, 0, 1, 1)], np.float32),
        scores=np.array([score, 0.25], np.float32),
        class_ids=np.array([class_id, 1 - class_id]),
        masks=(RLE.encode(mask), RLE.encode(np.eye(*SIZE, dtype=np.uint8))),
    )


ANSWERS = ((1, found((2, 2, 12, 12), 0)), (2, found((5, 5, 13, 13), 1)))


@pytest.mark.parametrize("masks", [False, True])
def test_detections_there_and_back(annotations: Path, tmp_path: Path, masks: bool) -> None:
    path = tmp_path / "results.json"
    assert write_detections(path, ANSWERS, IDS, masks_only=masks) == 4
    back = read_detections(path, annotations, masks=masks)
    assert sorted(back) == [1, 2, 3]
    assert len(back[3]) == 0
    for image_id, answer in ANSWERS:
        again = back[image_id]
        assert again.names == answer.names
        np.testing.assert_array_equal(again.scores, answer.scores)
        assert again.classes == ("cat", "taxi")
        if masks:
            assert again.masks == answer.masks
            np.testing.assert_array_equal(again.boxes[0], answer.boxes[0])
        else:
            np.testing.assert_array_equal(again.boxes, answer.boxes)


def test_the_tools_read_what_is_written(annotations: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_detections(path, ANSWERS, IDS)
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(annotations)).loadRes(str(path))
    assert len(loaded.getAnnIds()) == 4
    assert score_coco(annotations, path, iou="bbox").metrics["AP"] == pytest.approx(1)
    assert score_coco(annotations, path, iou="segm").metrics["AP"] == pytest.approx(1)
    assert score_lvis(annotations, path, iou="segm").metrics["AP"] == pytest.approx(1)


def test_the_limit_keeps_the_best(annotations: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert write_detections(path, ANSWERS, IDS, per_image=1) == 2
    assert {row["score"] for row in json.loads(path.read_text())} == {0.75}


def panoptic() -> PanopticMap:
    ids = np.zeros(SIZE, np.int32)
    ids[:10], ids[10:, :5] = 300, 2
    return PanopticMap(
        classes=NAMES,
        ids=ids,
        segments=(
            Segment(id=300, class_id=0, score=1.0, area=300, is_thing=True),
            Segment(id=2, class_id=1, score=1.0, area=50, is_thing=False),
        ),
    )


def test_panoptic_there_and_back(tmp_path: Path) -> None:
    results, truth = tmp_path / "results.json", tmp_path / "truth.json"
    assert write_panoptic(results, [(1, "a/one.jpg", panoptic())], IDS) == 1
    write_panoptic(truth, [(1, "one.jpg", panoptic())], IDS)
    content = json.loads(truth.read_text())
    content["categories"] = [{"id": 7, "name": "taxi", "isthing": 1}, {"id": 3, "name": "cat", "isthing": 0}]
    truth.write_text(json.dumps(content))
    assert score_panoptic_files(truth, results).metrics["PQ"] == 1
    ((image_id, back),) = read_panoptic(results, truth)
    assert image_id == 1
    assert back.segments == panoptic().segments
    np.testing.assert_array_equal(back.ids, panoptic().ids)
    with pytest.raises(InvalidParameter, match="one PNG"):
        write_panoptic(results, [(1, "a/1.jpg", panoptic()), (2, "b/1.jpg", panoptic())], IDS)


def test_a_segment_that_is_not_drawn_is_refused(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    write_panoptic(results, [(1, "one.jpg", panoptic())], IDS)
    content = json.loads(results.read_text())
    content["categories"] = [{"id": 7, "name": "taxi", "isthing": 1}, {"id": 3, "name": "cat", "isthing": 0}]
    content["annotations"][0]["segments_info"][0]["id"] = 9
    results.write_text(json.dumps(content))
    with pytest.raises(InvalidDataset, match="does not hold"):
        list(read_panoptic(results, results))


def test_supervision_there_and_back() -> None:
    pytest.importorskip("supervision")
    answer = ANSWERS[0][1]
    back = from_supervision(answer.to_supervision(), SIZE, NAMES)
    assert back.names == answer.names
    assert back.masks == answer.masks
    np.testing.assert_array_equal(back.boxes, answer.boxes)
    shuffled = answer.to_supervision()[np.array([1, 0])]
    assert from_supervision(shuffled, SIZE, NAMES).scores.tolist() == [0.75, 0.25]
    shuffled.class_id = None
    with pytest.raises(InvalidParameter, match="no classes"):
        from_supervision(shuffled, SIZE, NAMES)
