"""A head is measured while it learns, and learns on as if it had not been."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest

import ovperception
from eval.training import coco_evaluator, scenes_evaluator
from ovperception.errors import InvalidParameter
from ovperception.model import Model
from ovperception.training.evaluation import evaluator
from ovperception.training.loop_settings import EvaluationSettings
from tests.eval.running_jobs import drawn


@pytest.fixture(scope="module")
def model() -> Model:
    return ovperception.load("tiny")


def recipe(model: Model, **fields: Any) -> Any:
    evaluation = EvaluationSettings(every=1, images=2)
    return SimpleNamespace(
        name="mine",
        head="fcclip",
        size=96,
        preprocessing=dataclasses.replace(model.preprocessing, shortest_edge=96),
        shortest_edge=None,
        templates=model.card.templates,
        loop=SimpleNamespace(evaluation=evaluation),
        **fields,
    )


def test_on_scenes(model: Model) -> None:
    head = model.heads["fcclip"]
    for part in head.parameters():
        part.requires_grad_(True)
    found = evaluator("scenes", recipe(model), model.backbone)(head, 7)
    assert {"AP50_novel", "PQ", "mIoU"} <= found.keys()
    assert all(0 <= value <= 1 for value in found.values())
    assert found["PQ"] > 0
    assert all(part.requires_grad for part in head.parameters())


def test_on_a_file(model: Model, tmp_path: Path) -> None:
    sample = drawn(1)[0]
    cv2.imwrite(str(tmp_path / "a.png"), sample.image[..., ::-1])
    box = sample.things[0].box
    truth = {
        "images": [{"id": 5, "file_name": "a.png", "height": 96, "width": 96}],
        "annotations": [
            {
                "id": 1,
                "image_id": 5,
                "category_id": 3,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": 100,
            }
        ],
        "categories": [{"id": 3, "name": "thing"}],
    }
    (tmp_path / "my.json").write_text(json.dumps(truth))
    held_out = SimpleNamespace(annotations=tmp_path / "my.json", images=tmp_path)
    found = coco_evaluator(recipe(model, held_out=held_out), model.backbone)(model.heads["fcclip"], 1)
    assert 0 <= found["AP"] <= 1
    with pytest.raises(InvalidParameter, match="no file to evaluate on"):
        coco_evaluator(recipe(model), model.backbone)


def test_a_head_that_answers_nothing(model: Model) -> None:
    with pytest.raises(InvalidParameter, match="nothing that the head can answer"):
        scenes_evaluator(recipe(model), model.backbone)(SimpleNamespace(tasks=frozenset()), 1)  # type: ignore[arg-type]
