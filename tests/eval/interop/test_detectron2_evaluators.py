"""Our evaluators answer, from detectron2's inputs and outputs, what our metrics say of the same files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from eval.interop.detectron2_evaluators import DetectionEvaluator, PanopticEvaluator, SemanticEvaluator
from eval.metrics import score_coco
from eval.metrics.json_files import read_json
from ovperception.errors import InvalidParameter, MissingFile
from ovperception.structures import PanopticMap, Segment
from tests.eval.comparing.runs import IMAGES, detection_files

IDS = (1, 2, 3, 4)


class FakeInstances:
    """As much of detectron2's ``Instances`` as an evaluator reads."""

    def __init__(self, rows: list[dict[str, Any]], masks: bool = False) -> None:
        boxes = torch.tensor([r["bbox"] for r in rows], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        self.pred_boxes = SimpleNamespace(tensor=boxes)
        self.scores = torch.tensor([r["score"] for r in rows], dtype=torch.float64)
        self.pred_classes = torch.tensor([r["category_id"] - 1 for r in rows], dtype=torch.int64)
        if masks:
            self.pred_masks = torch.zeros(len(rows), 100, 100, dtype=torch.bool)
            for i, (x0, y0, x1, y1) in enumerate(boxes.round().int().tolist()):
                self.pred_masks[i, y0:y1, x0:x1] = True

    def has(self, name: str) -> bool:
        return hasattr(self, name)


def batches(results: list[dict[str, Any]], masks: bool = False) -> Any:
    for image in IMAGES:
        rows = [row for row in results if row["image_id"] == image]
        yield [{"image_id": image}], [{"instances": FakeInstances(rows, masks)}]


def test_detection(tmp_path: Path) -> None:
    truth, results = detection_files(tmp_path, seed=4)
    evaluator = DetectionEvaluator(truth, IDS, groups={"base": (1, 2), "novel": (3, 4)})
    for _ in range(2):  # the second round must not see the first
        evaluator.reset()
        for inputs, outputs in batches(read_json(results)):
            evaluator.process(inputs, outputs)
        found = evaluator.evaluate()
    expected = score_coco(truth, results, groups={"base": (1, 2), "novel": (3, 4)})
    assert found is not None
    for name in ("AP", "AP50", "APs", "AP50_novel"):
        assert found["bbox"][name] == pytest.approx(100 * expected.metrics[name], abs=1e-9)
    assert evaluator.scores["bbox"].per_class == expected.per_class


def test_masks(tmp_path: Path) -> None:
    truth, results = detection_files(tmp_path, seed=4)
    content = read_json(truth)
    for row in content["annotations"]:
        x, y, w, h = (round(side) for side in row["bbox"])
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        row["iscrowd"] = 0
    truth.write_text(json.dumps(content))
    evaluator = DetectionEvaluator(truth, IDS, kinds=("bbox", "segm"))
    for inputs, outputs in batches(read_json(results), masks=True):
        evaluator.process(inputs, outputs)
    found = evaluator.evaluate()
    assert found is not None
    assert set(found) == {"bbox", "segm"}
    assert 0 < found["segm"]["AP50"] < 100


def test_what_cannot_be_judged(tmp_path: Path) -> None:
    truth, results = detection_files(tmp_path, seed=4)
    with pytest.raises(InvalidParameter, match="rules are not known"):
        DetectionEvaluator(truth, IDS, rules="voc")
    evaluator = DetectionEvaluator(truth, IDS[:1])
    given = list(batches(read_json(results)))
    inputs = [one for batch, _ in given for one in batch]
    outputs = [one for _, batch in given for one in batch]
    with pytest.raises(InvalidParameter, match="has no id"):
        evaluator.process(inputs, outputs)
    with pytest.raises(InvalidParameter, match="no 'instances'"):
        evaluator.process([{"image_id": 1}], [{"sem_seg": 0}])


def test_semantic(tmp_path: Path) -> None:
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), truth)
    planes = torch.zeros(3, 1, 4)
    for x, k in enumerate((0, 2, 1, 1)):
        planes[k, 0, x] = 0.3
    evaluator = SemanticEvaluator(("sky", "sea", "cat"))
    evaluator.process([{"sem_seg_file_name": str(tmp_path / "a.png")}], [{"sem_seg": planes}])
    found = evaluator.evaluate()
    assert found is not None
    assert found["sem_seg"]["mIoU"] == pytest.approx(75)
    assert found["sem_seg"]["pACC"] == pytest.approx(200 / 3)


def test_panoptic(tmp_path: Path) -> None:
    ids = np.zeros((6, 8), np.int32)
    ids[:3], ids[3:] = 5, 9
    segments = [{"id": 5, "category_id": 70}, {"id": 9, "category_id": 30}]
    found = PanopticMap(
        classes=("taxi", "sky"),
        ids=ids,
        segments=(
            Segment(id=5, class_id=0, score=1, area=24, is_thing=True),
            Segment(id=9, class_id=1, score=1, area=24, is_thing=False),
        ),
    )
    (tmp_path / "truth").mkdir()
    found.save_png(tmp_path / "truth" / "one.png")
    content = {
        "categories": [{"id": 70, "name": "taxi", "isthing": 1}, {"id": 30, "name": "sky", "isthing": 0}],
        "annotations": [{"image_id": 1, "file_name": "one.png", "segments_info": segments}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    evaluator = PanopticEvaluator(tmp_path / "truth.json", (70, 30))
    answer = {
        "panoptic_seg": (torch.from_numpy(ids), [{"id": 5, "category_id": 0}, {"id": 9, "category_id": 1}])
    }
    evaluator.process([{"image_id": 1}], [answer])
    numbers = evaluator.evaluate()
    assert numbers is not None
    assert numbers["panoptic_seg"]["PQ"] == 100
    assert numbers["panoptic_seg"]["PQ_stuff"] == 100
    with pytest.raises(MissingFile, match="not annotated"):
        evaluator.process([{"image_id": 2}], [answer])
    with pytest.raises(InvalidParameter, match="lists no segments"):
        evaluator.process([{"image_id": 1}], [{"panoptic_seg": (torch.from_numpy(ids), None)}])


def test_processes_are_gathered_in_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As detectron2's ``comm`` does it: everyone gathers, the others get an empty list."""
    truth, results = detection_files(tmp_path, seed=4)
    rows = list(batches(read_json(results)))
    evaluators = [DetectionEvaluator(truth, IDS) for _ in range(2)]
    for rank, evaluator in enumerate(evaluators):
        for inputs, outputs in rows[rank::2]:
            evaluator.process(inputs, outputs)
    given: list[Any] = []

    def standing_in(rank: int) -> ModuleType:
        """The first process comes last here: by then the other has given its part."""

        def gather(part: Any) -> list[Any]:
            given.append(part)
            return [given[len(given) - 3], part] if rank == 0 else []

        comm = SimpleNamespace(synchronize=lambda: None, gather=gather, is_main_process=lambda: rank == 0)
        utils = ModuleType("detectron2.utils")
        utils.__dict__["comm"] = comm
        return utils

    answers = []
    for rank in (1, 0):
        monkeypatch.setitem(sys.modules, "detectron2", ModuleType("detectron2"))
        monkeypatch.setitem(sys.modules, "detectron2.utils", standing_in(rank))
        answers.append(evaluators[rank].evaluate())
    other, found = answers
    assert other is None
    assert found is not None
    assert found["bbox"]["AP"] == pytest.approx(100 * score_coco(truth, results).metrics["AP"], abs=1e-9)


def test_beside_detectron2_itself(tmp_path: Path) -> None:
    evaluation = pytest.importorskip("detectron2.evaluation", exc_type=ImportError)
    truth, results = detection_files(tmp_path, seed=4)
    rows = read_json(results)
    evaluator = evaluation.DatasetEvaluators([DetectionEvaluator(truth, IDS)])
    images = [[{"image_id": image}] for image in IMAGES]

    def model(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = [row for row in rows if row["image_id"] == inputs[0]["image_id"]]
        return [{"instances": FakeInstances(found)}]

    numbers = evaluation.inference_on_dataset(model, images, evaluator)
    assert numbers["bbox"]["AP"] == pytest.approx(100 * score_coco(truth, results).metrics["AP"])
