"""A finished evaluation is read back as it was written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.outcome import (
    Breakdown,
    ClassRow,
    ConfusedPair,
    CountedWarning,
    Curve,
    Example,
    ImageCounts,
    ImageScore,
    Outcome,
    RunFacts,
)
from eval.outcome_files import read_outcome, write_outcome
from ovperception.errors import InvalidDataset, MissingFile
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, Segment, SemanticMap

IMAGE = ImageScore(image_id=7, file_name="a.jpg", path="", score=0.5, objects=2, found=1)
MASK = RLE.encode(np.eye(4, dtype=np.uint8))
FOUND = Detections(
    size=(4, 4),
    classes=("cat",),
    boxes=np.array([[0, 0, 2, 2.5]], np.float32),
    scores=np.array([0.25], np.float32),
    class_ids=np.array([0]),
    masks=(MASK,),
)


def outcome() -> Outcome:
    labels = SemanticMap(classes=("cat", "sky"), labels=np.array([[0, 1], [-1, 1]], np.int32))
    segments = (Segment(id=300, class_id=1, score=1.0, area=2, is_thing=False),)
    ids = PanopticMap(classes=("cat", "sky"), ids=np.array([[0, 300], [0, 300]], np.int32), segments=segments)
    return Outcome(
        protocol="coco_box",
        title="COCO",
        kind="coco",
        headline="AP",
        report_line="all of it",
        metrics={"AP": 0.1 + 0.2, "APs": None},
        rules={"AP": "COCO"},
        facts=RunFacts(model="m 1", versions={"numpy": "2"}, workers=2, seconds=1.5),
        per_class=(ClassRow(id=3, name="cat", groups=("base",), values={"AP": 0.25, "APs": None}),),
        curves=(Curve(name="all", class_id=None, iou=0.5, precision=(1.0, 0.5)),),
        confusion=(ConfusedPair(truth="cat", predicted="dog", count=2, share=0.5),),
        breakdowns=(Breakdown(name="size", rows={"small": {"AP": None}}),),
        latencies={"encode": (1.25, 2.5)},
        images=(IMAGE,),
        examples=(
            Example(which="best", image=IMAGE, picture="examples/a.png", truth=labels, found=labels),
            Example(which="worst", image=IMAGE, picture="/a.png", truth=ids, found=ids),
            Example(which="worst", image=IMAGE, picture="/b.png", truth=FOUND, found=FOUND),
        ),
        counts=ImageCounts(
            columns=("tp", "fp"),
            images=np.array([0]),
            classes=np.array([0]),
            values=np.array([[1.0, 0.5]]),
        ),
        warnings=(CountedWarning(name="no_results", count=1, text="none"),),
    )


def test_read_is_what_was_written(tmp_path: Path) -> None:
    written = outcome()
    write_outcome(written, tmp_path)
    found = read_outcome(tmp_path)
    for name in ("metrics", "rules", "facts", "per_class", "curves", "confusion", "breakdowns", "latencies"):
        assert getattr(found, name) == getattr(written, name), name
    assert found.images == written.images
    assert found.warnings == written.warnings
    assert found.counts is not None
    assert written.counts is not None
    assert found.counts.columns == ("tp", "fp")
    assert found.counts.values.tolist() == written.counts.values.tolist()
    semantic, panoptic, boxes = (example.found for example in found.examples)
    assert isinstance(semantic, SemanticMap)
    assert semantic.labels.tolist() == [[0, 1], [-1, 1]]
    assert isinstance(panoptic, PanopticMap)
    assert panoptic.ids.tolist() == [[0, 300], [0, 300]]
    assert panoptic.segments[0].class_id == 1
    assert isinstance(boxes, Detections)
    assert boxes.boxes.tolist() == FOUND.boxes.tolist()
    assert boxes.masks == (MASK,)
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"AP": 0.1 + 0.2, "APs": None}


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no finished evaluation"):
        read_outcome(tmp_path)
    write_outcome(outcome(), tmp_path)
    (tmp_path / "outcome.json").write_text('{"version": 1')
    with pytest.raises(InvalidDataset, match="cannot be read"):
        read_outcome(tmp_path)
