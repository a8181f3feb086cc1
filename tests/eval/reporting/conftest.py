"""An evaluation with a bit of everything, whose names try to break the page."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.outcome import (
    Breakdown,
    ClassRow,
    ConfusedPair,
    CountedWarning,
    Curve,
    Example,
    ImageScore,
    Outcome,
    RunFacts,
)
from ovperception.rle import RLE
from ovperception.structures import Detections

HOSTILE = "</script><script>alert(1)</script>\"'&"


def detections(scores: tuple[float, ...]) -> Detections:
    mask = np.zeros((48, 64), np.uint8)
    mask[4:20, 6:30] = 1
    return Detections(
        size=(48, 64),
        classes=("cat", HOSTILE),
        boxes=np.tile(np.array([[6, 4, 30, 20]], np.float32), (len(scores), 1)),
        scores=np.array(scores, np.float32),
        class_ids=np.arange(len(scores)) % 2,
        masks=(RLE.encode(mask),) * len(scores),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    return tmp_path


@pytest.fixture
def outcome() -> Outcome:
    image = ImageScore(image_id=1, file_name=f"{HOSTILE}.jpg", path="a.png", score=0.25, objects=4, found=1)
    example = Example(
        which="worst", image=image, picture="a.png", truth=detections((1.0,)), found=detections((0.9, 0.4))
    )
    classes = (("cat", ("base",), 0.5), (HOSTILE, ("novel",), 0.125), ("dog", ("base",), None))
    return Outcome(
        protocol="ov_coco",
        title="OV-COCO",
        kind="coco",
        headline="AP50_novel",
        report_line=f"coco val; words {HOSTILE}",
        metrics={"AP": 0.25, "AP50_novel": 0.314, "AP50_all": 0.504, "APs": None, "timing/encode_ms": 12.5},
        rules={"AP": "COCO"},
        facts=RunFacts(
            model=f"tiny {HOSTILE}",
            command=f"ovp eval --model tiny --data {HOSTILE}",
            commit="abc123",
            seed="7",
            versions={"numpy": "2.1"},
            vocabulary_hash="f" * 64,
        ),
        per_class=tuple(
            ClassRow(id=i, name=name, groups=groups, values={"AP": value, "objects": 10 * i})
            for i, (name, groups, value) in enumerate(classes)
        ),
        curves=(
            Curve(name="all", class_id=None, iou=0.5, precision=(1.0,) * 51 + (0.0,) * 50),
            Curve(name="all", class_id=None, iou=0.75, precision=(0.5,) * 101),
            Curve(name=HOSTILE, class_id=1, iou=0.5, precision=(0.25,) * 101),
        ),
        confusion=(
            ConfusedPair(truth="cat", predicted=HOSTILE, count=30, share=0.3),
            ConfusedPair(truth="cat", predicted="", count=20, share=0.2),
            ConfusedPair(truth="", predicted="dog", count=9, share=0.0),
        ),
        breakdowns=(
            Breakdown(name="size", rows={"small": {"AP": None}, "large": {"AP": 0.75}}),
            Breakdown(name="words", rows={"base": {"AP50": 0.5}, "novel": {"AP50": 0.25}}),
        ),
        latencies={"encode": (10.0, 11.0, 30.0), "detect": (1.0, 2.0, 1.5), "idle": ()},
        images=(image,),
        examples=(example,),
        warnings=(CountedWarning(name="odd", count=1234, text=f"is {HOSTILE}"),),
    )
