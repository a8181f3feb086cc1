"""Sets that were made for the purpose, with the numbers that pycocotools and lvis-api gave for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.metrics import score_coco, score_lvis

FOLDER = Path(__file__).parents[2] / "data/eval"
GOLDENS = json.loads((FOLDER / "goldens.json").read_text())
# Whether a machine adds up 80,800 entries as the one that wrote the goldens did is numpy's affair.
SAME = {"abs": 1e-15, "rel": 1e-14}


@pytest.mark.parametrize("iou", ["bbox", "segm"])
def test_coco(iou: str) -> None:
    found = score_coco(FOLDER / "coco_gt.json.gz", FOLDER / f"coco_dt_{iou}.json.gz", iou=iou)
    assert dict(found.metrics) == pytest.approx(GOLDENS["coco"][iou], **SAME)


def test_lvis() -> None:
    found = score_lvis(FOLDER / "lvis_gt.json.gz", FOLDER / "lvis_dt_segm.json.gz")
    expected = GOLDENS["lvis"]["segm"]
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, **SAME)
