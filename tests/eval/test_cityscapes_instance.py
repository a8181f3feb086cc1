"""The protocol `cityscapes_instance`: of Cityscapes' own files, of a run's, and in a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from eval.metrics import cityscapes_results, cityscapes_truth, score_cityscapes
from eval.outcome_files import read_outcome
from eval.protocols import protocol
from eval.running.asking import LocalAsker
from eval.running.run import run
from ovperception import cli
from ovperception.datasets.categories import builtin_classes
from ovperception.errors import Unsupported
from ovperception.rle import RLE
from ovperception.structures import Detections
from ovperception.vocabulary import Vocabulary
from tests.eval.metrics.street_scenes import HEIGHT, WIDTH, write_street_scenes
from tests.eval.running_jobs import job

LABELS = builtin_classes("cityscapes_19").category_ids


class Street:
    """Answers with the rows of a result file; 7 is a road, which the evaluator has to drop."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = sorted((row for row in rows if row["area"]), key=lambda row: -row["score"])

    def detect(self, vocabulary: Vocabulary, **_: Any) -> Detections:
        boxes = np.array([row["bbox"] for row in self.rows], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return Detections(
            size=(HEIGHT, WIDTH),
            classes=vocabulary.names,
            boxes=boxes,
            scores=np.array([row["score"] for row in self.rows], np.float32),
            class_ids=np.array([LABELS.index(row["category_id"]) for row in self.rows], np.int64),
            masks=tuple(RLE.from_coco(row["segmentation"]) for row in self.rows),
        )


def score(truth: Path, results: Path, out: Path, *arguments: str) -> dict[str, float | None]:
    given = ["--annotations", str(truth), "--results", str(results), "--out", str(out), *arguments]
    assert cli.main(["eval", "--json", "--protocol", "cityscapes_instance", *given]) == 0
    return read_outcome(out).metrics


def test_files_and_a_run(tmp_path: Path, fake_model: type) -> None:
    truth, results = write_street_scenes(tmp_path, 5, images=3)
    content = cityscapes_truth(truth)
    rows = cityscapes_results(results, content)
    expected = score_cityscapes(content, rows).metrics
    of_files = score(truth, results, tmp_path / "files")
    assert {name: of_files[name] for name in expected} == expected
    assert "mask AP (Cityscapes)" in read_outcome(tmp_path / "files").report_line
    assert score(truth, results, tmp_path / "coco", "--metric", "mask").keys() > {"AP75", "APs"}

    model = fake_model(())
    streets = {}
    for shade, image in enumerate(content["images"]):
        path = tmp_path / "leftImg8bit/val" / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.full((HEIGHT, WIDTH, 3), shade, np.uint8)
        cv2.imwrite(str(path), picture)
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        name = image["file_name"].replace("_leftImg8bit", "_gtFine_labelIds")
        cv2.imwrite(str(truth / name), labels)
        streets[picture.tobytes()] = Street([row for row in rows if row["image_id"] == image["id"]])
    model.encode = lambda picture: streets[picture.tobytes()]
    model.preprocessing = SimpleNamespace(shortest_edge=9, longest_edge=9)
    settings = {"data": "cityscapes", "root": tmp_path, "size": None, "resolution": "model"}
    ran = job("cityscapes_instance", tmp_path / "run", **settings)
    (outcome,) = run([ran], asker=LocalAsker(model, ran))
    assert outcome.metrics == pytest.approx(of_files)
    assert outcome.warnings == ()
    saved = ran.out / "predictions"
    for number, results in enumerate((saved / "results.json", saved / "instances")):
        assert score(truth, results, tmp_path / f"again{number}") == outcome.metrics

    text = saved / "instances" / content["images"][0]["file_name"].replace("_leftImg8bit.png", ".txt")
    text = text.parents[1] / text.name
    lines = text.read_text()
    assert lines.split()[0] == f"masks/{text.stem}_000.png"
    text.unlink()
    run([ran], asker=LocalAsker(model, ran))  # looked at again, as what it said was lost
    assert text.read_text() == lines


def test_a_mask_named_twice_is_what_the_last_line_says(tmp_path: Path) -> None:
    truth, results = write_street_scenes(tmp_path, 5, images=1)
    content = cityscapes_truth(truth)
    rows = cityscapes_results(results, content)
    (text,) = results.glob("*.txt")
    name = text.read_text().split()[0]
    text.write_text(text.read_text() + f"{name} 33 0.25\n")
    again = cityscapes_results(results, content)
    assert again[0] == rows[0] | {"category_id": 33, "score": 0.25}
    assert again[1:] == rows[1:]


def test_its_rules_need_its_files(tmp_path: Path) -> None:
    ran = job("cityscapes_instance", tmp_path, data="scenes")
    with pytest.raises(Unsupported, match="need its own files"):
        run([ran])


def test_it_is_of_masks() -> None:
    for name in ("box", "boundary"):
        assert protocol(f"cityscapes_instance:{name}").metric.kind == "coco"  # type: ignore[union-attr]
