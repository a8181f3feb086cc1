"""A protocol with another metric: of files from the command line, in a run, and by its name alone."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.comparing import compare
from eval.metrics import BoundaryIoU, score_coco, voc_ap
from eval.outcome_files import read_outcome
from eval.protocols import protocol, report_line, with_metric
from eval.running.asking import LocalAsker
from eval.running.files import score_files
from eval.running.run import run
from ovperception import cli
from ovperception.errors import InvalidParameter
from ovperception.rle import RLE
from tests.eval.running_jobs import drawn, job, numbers


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two cats, one of them difficult, and three answers with masks."""
    rng = np.random.default_rng(0)
    boxes = [[0, 0, 20, 20], [50, 50, 20, 20], [10, 60, 30, 30]]
    rows = []
    for box in boxes:
        x, y, width, height = box
        mask = np.zeros((100, 100), np.uint8)
        mask[y : y + height, x : x + width] = 1
        mask[y : y + 3, x : x + 3] = 0
        rows.append(
            {"image_id": 1, "category_id": 17, "bbox": box, "segmentation": RLE.encode(mask).to_coco()}
        )
    truth = [dict(row, id=n, area=350, iscrowd=int(n == 2)) for n, row in enumerate(rows[:2], 1)]
    answers = [dict(row, score=float(rng.random())) for row in rows]
    content = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "annotations": truth,
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
    }
    paths = tmp_path / "truth.json", tmp_path / "answers.json"
    for path, value in zip(paths, (content, answers), strict=True):
        path.write_text(json.dumps(value))
    return paths


def score(files: tuple[Path, Path], out: Path, *arguments: str) -> None:
    given = ["--annotations", str(files[0]), "--results", str(files[1]), "--out", str(out), *arguments]
    assert cli.main(["eval", "--json", *given]) == 0


@pytest.mark.parametrize(("name", "curve"), [("voc", "area"), ("voc_2007", "11 points")])
def test_voc(files: tuple[Path, Path], tmp_path: Path, name: str, curve: str) -> None:
    score(files, tmp_path / "out", "--protocol", "coco_box", "--metric", name)
    found = read_outcome(tmp_path / "out")
    expected = {c.id: ap for c, ap in voc_ap(*files, curve=curve).items()}
    assert {row.id: row.values["AP"] for row in found.per_class} == expected
    assert found.metrics == {"mAP": expected[17]}
    assert found.headline == "mAP"
    assert f"AP (PASCAL VOC, {curve}, IoU 0.5)" in found.report_line
    assert "by ovperception" in found.report_line
    assert "mAP" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(("name", "iou"), [("boundary", "boundary"), ("mask", "segm"), ("box", "bbox")])
def test_ap(files: tuple[Path, Path], tmp_path: Path, name: str, iou: str) -> None:
    score(files, tmp_path / "out", "--protocol", f"coco_box:{name}")
    assert read_outcome(tmp_path / "out").metrics == dict(score_coco(*files, iou=iou).metrics)


@pytest.mark.parametrize(("name", "rule"), [("boundary", "per class"), ("boundary_detectron2", "detectron2")])
def test_boundaries_of_label_maps(tmp_path: Path, name: str, rule: str) -> None:
    rng = np.random.default_rng(1)
    expected = BoundaryIoU(20, rule)
    for image in ("a", "b"):
        maps = [cv2.resize(rng.integers(0, 6, (4, 4), np.uint8), (60, 40), interpolation=0) for _ in "tr"]
        for kind, labels in zip(("truth", "found"), maps, strict=True):
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"{image}.png"), labels)
        truth, found = (np.where(labels > 0, labels.astype(np.int64) - 1, -1) for labels in maps)
        expected.add(truth, found)
    chosen = with_metric(protocol("pascal_voc_20"), name)
    outcome = score_files(chosen, tmp_path / "truth", tmp_path / "found", tmp_path / "out")
    assert outcome.headline == "boundary_mIoU"
    assert outcome.metrics["boundary_mIoU"] == expected.mean() != outcome.metrics["mIoU"]
    per_class = [row.values["boundary_IoU"] for row in outcome.per_class]
    assert per_class == [None if np.isnan(v) else v for v in expected.per_class().tolist()]


def test_a_run_goes_on_and_adds_up(tmp_path: Path, fake_model: type) -> None:
    """The boundaries of a run are those of the maps that it wrote, stopped or not."""
    name = "scenes_semantic:boundary"
    whole, parted = job(name, tmp_path / "whole"), job(name, tmp_path / "parted")
    (outcome,) = run([whole], asker=LocalAsker(fake_model(drawn(3), lies=True), whole))
    first = job(name, tmp_path / "parted", limit=1)
    run([first], asker=LocalAsker(fake_model(drawn(3), lies=True), first))
    run([parted], asker=LocalAsker(fake_model(drawn(3), lies=True), parted))
    assert numbers(whole.out) == numbers(parted.out)
    assert outcome.metrics["boundary_mIoU"] < 1
    truthful = job(name, tmp_path / "truthful")
    (right,) = run([truthful], asker=LocalAsker(fake_model(drawn(3)), truthful))
    assert right.metrics["boundary_mIoU"] == 1
    found = compare(outcome, right, (whole.out, truthful.out), resamples=100)
    assert not found.no_interval
    low = {row.name: row.low for row in found.metrics}
    assert None not in [low[name] for name in ("boundary_mIoU", "mIoU", "mACC", "fwIoU", "pACC")]


def test_what_does_not_go_together() -> None:
    for name, metric, listed in (
        ("coco_box", "rouge", "boundary, voc"),
        ("lvis_box", "voc", "boundary"),
        ("coco_panoptic", "boundary", "none but"),
        ("ade20k_150", "mask", "boundary_detectron2"),
    ):
        with pytest.raises(InvalidParameter, match=listed):
            protocol(f"{name}:{metric}")


def test_what_is_told() -> None:
    line = report_line(protocol("ade20k_150:boundary"), images=1, vocabulary_hash="0" * 64, engine="us")
    assert "mIoU averaged as detectron2; boundary IoU per class" in line
