"""AP by hand, by both engines."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from eval.metrics import ENGINES, EngineName, PrecisionRecall, score_coco
from ovperception.rle import RLE

TRUTH = {
    "images": [{"id": 1, "height": 100, "width": 100}, {"id": 2, "height": 100, "width": 100}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 7, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 0},
        {"id": 3, "image_id": 1, "category_id": 8, "bbox": [50, 50, 50, 50], "area": 2500, "iscrowd": 0},
    ],
    "categories": [{"id": i, "name": str(i)} for i in (7, 8, 9)],
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    return request.param


def curves(truth: dict, results: list, iou: str, engine: EngineName) -> PrecisionRecall:
    return score_coco(truth, results, iou=iou, engine=engine).curves


def box(image: int, category: int, xywh: list[float], score: float) -> dict:
    return {"image_id": image, "category_id": category, "bbox": xywh, "score": score}


def test_by_hand(engine: EngineName) -> None:
    results = [
        box(1, 7, [0, 0, 50, 50], 0.9),
        box(2, 7, [40, 40, 50, 50], 0.8),  # overlaps too little
        box(2, 7, [0, 0, 50, 40], 0.7),  # IoU 0.8: right up to there
        box(1, 9, [0, 0, 9, 9], 0.99),  # a class without truth lowers nothing
    ]
    found = curves(TRUTH, results, "bbox", engine)
    # 51 of 101 recall points at precision 1, 50 at 2/3
    at_50 = (51 + 50 * 2 / 3) / 101
    assert found.ap([7], iou=0.5) == pytest.approx(at_50)
    assert found.ap([7], iou=0.85) == pytest.approx(51 / 101)
    assert found.ap([7]) == pytest.approx((7 * at_50 + 3 * 51 / 101) / 10)
    assert found.ap([8], iou=0.5) == 0  # never found
    assert found.ap([9]) is None
    assert found.ap(iou=0.5) == pytest.approx(at_50 / 2)
    assert found.per_class(iou=0.5) == {7: pytest.approx(at_50), 8: 0, 9: None}
    assert found.ar([7]) == pytest.approx((7 * 1 + 3 * 0.5) / 10)
    assert found.ap(area="medium") == found.ap()
    assert found.ap(area="large") is None


def test_no_detections_score_zero(engine: EngineName) -> None:
    found = curves(TRUTH, [], "bbox", engine)
    assert found.ap() == found.ar() == 0


def test_without_truth_there_is_no_number(engine: EngineName) -> None:
    truth = TRUTH | {"annotations": []}
    for results in ([], [box(1, 7, [0, 0, 50, 50], 0.9)]):
        found = curves(truth, results, "bbox", engine)
        assert found.ap() is found.ap([7], iou=0.5) is found.ar() is None


def test_masks_are_judged_without_their_boxes(engine: EngineName) -> None:
    def mask(y: int, side: int) -> dict:
        pixels = np.zeros((100, 100), bool)
        pixels[y : y + side, :side] = True
        return dict(RLE.encode(pixels).to_coco())

    truth = TRUTH | {"annotations": [TRUTH["annotations"][0] | {"segmentation": mask(0, 20), "area": 400}]}
    results = [
        # A false alarm of 100 pixels counts among the small ones, whatever its box says.
        box(1, 7, [0, 0, 100, 100], 0.9) | {"segmentation": mask(50, 10)},
        box(1, 7, [0, 0, 20, 20], 0.8) | {"segmentation": mask(0, 20)},
    ]
    found = curves(truth, results, "segm", engine)
    assert found.ap(area="small") == pytest.approx(0.5)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], engine: EngineName) -> None:
    curves(TRUTH, [box(1, 7, [0, 0, 50, 50], 0.9)], "bbox", engine)
    assert capfd.readouterr() == ("", "")


def test_scoring_files_loads_no_torch() -> None:
    code = "import sys, eval.metrics; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
