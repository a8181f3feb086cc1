"""Resampled numbers are those of the reference on the images as they were drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.comparing.matches import read_matches
from eval.comparing.resampled_ap import resampled_ap
from eval.comparing.resampled_maps import resampled_qualities
from eval.comparing.resampled_voc import read_voc_matches, resampled_voc
from eval.comparing.resampling import draws, interval
from eval.metrics import Category, ConfusionMatrix, score_coco, score_lvis, score_semantic, score_voc
from eval.metrics.json_files import read_json
from eval.outcome import ClassRow, ImageCounts, ImageScore, Outcome
from eval.protocols.protocol import AP
from ovperception.rle import RLE
from tests.eval.comparing.runs import IMAGES, NAMES, detection_files, write_json


def described(truth: dict[str, Any]) -> Outcome:
    return Outcome(
        protocol="ov_coco",
        title="",
        kind="coco",
        headline="AP",
        report_line="",
        metrics={},
        per_class=tuple(ClassRow(id=c["id"], name=c["name"], values={}) for c in truth["categories"]),
        images=tuple(
            ImageScore(image_id=i["id"], file_name="", path="", score=None) for i in truth["images"]
        ),
    )


def repeated(truth: dict[str, Any], results: list[dict[str, Any]], counts: np.ndarray) -> tuple[Any, Any]:
    """Both files as if every image were there as often as it was drawn."""
    images, annotations, found = [], [], []
    for image, count in zip(truth["images"], counts.tolist(), strict=True):
        for copy in range(count):
            new = 1000 * (copy + 1) + image["id"]
            images.append(image | {"id": new})
            annotations += [
                a | {"image_id": new} for a in truth["annotations"] if a["image_id"] == image["id"]
            ]
            found += [r | {"image_id": new} for r in results if r["image_id"] == image["id"]]
    annotations = [a | {"id": i} for i, a in enumerate(annotations, start=1)]
    return truth | {"images": images, "annotations": annotations}, found


@pytest.mark.parametrize("kind", ["coco", "lvis", "lvis-fixed"])
def test_ap_is_that_of_the_drawn_images(tmp_path: Path, kind: str) -> None:
    truth_file, results_file = detection_files(tmp_path, seed=3, federated=kind != "coco")
    truth, results = read_json(truth_file), read_json(results_file)
    metric = AP(
        kind="coco" if kind == "coco" else "lvis",
        iou="bbox",
        fixed=kind == "lvis-fixed",
        max_detections=None if kind == "lvis-fixed" else 100,
    )
    matches = read_matches(described(truth), metric, truth_file, results_file)
    weights = draws(len(IMAGES), 6, seed=1)
    weights[0] = 1
    ids = [c["id"] for c in truth["categories"]]
    found = resampled_ap(matches, ids, weights)
    for row, counts in zip(found, weights, strict=True):
        as_drawn = repeated(truth, results, counts)
        scores = (
            score_coco(*as_drawn)
            if kind == "coco"
            else score_lvis(*as_drawn, iou="bbox", fixed=kind == "lvis-fixed")
        )
        by_class = {line.category.id: line.values for line in scores.per_class}
        for k, class_id in enumerate(ids):
            for column, value in (("AP", row[k].mean()), ("AP50", row[k][0]), ("AP75", row[k][5])):
                expected = by_class[class_id][column]
                answer = None if np.isnan(value) else float(value)
                assert answer == (expected if expected is None else pytest.approx(expected, abs=1e-9))


@pytest.mark.parametrize("curve", ["area", "11 points"])
def test_voc_is_that_of_the_drawn_images(tmp_path: Path, curve: Any) -> None:
    files = detection_files(tmp_path, seed=3)
    truth, results = read_json(files[0]), read_json(files[1])
    weights = draws(len(IMAGES), 6, seed=1)
    found = resampled_voc(read_voc_matches(described(truth), *files), weights, curve)
    for row, counts in zip(found, weights, strict=True):
        scores = score_voc(*repeated(truth, results, counts), curve=curve)
        expected = [line.values["AP"] for line in scores.per_class]
        assert [None if np.isnan(v) else pytest.approx(v, abs=1e-12) for v in row] == expected


def test_boundary_ap_is_that_of_the_drawn_images(tmp_path: Path) -> None:
    files = detection_files(tmp_path, seed=3)
    truth, results = read_json(files[0]), read_json(files[1])
    for row in (*truth["annotations"], *results):
        x, y, width, height = (round(side) for side in row.pop("bbox"))
        mask = np.zeros((100, 100), np.uint8)
        mask[max(y, 0) : y + height, max(x, 0) : x + width] = 1
        row["segmentation"] = RLE.encode(mask).to_coco()
    write_json(files[0], truth)
    write_json(files[1], results)
    metric = AP(kind="coco", iou="boundary", max_detections=100)
    ids = [c["id"] for c in truth["categories"]]
    weights = draws(len(IMAGES), 3, seed=1)
    found = resampled_ap(read_matches(described(truth), metric, *files), ids, weights)
    for row, counts in zip(found, weights, strict=True):
        scores = score_coco(*repeated(truth, results, counts), iou="boundary")
        expected = [line.values["AP"] for line in scores.per_class]
        means = row.mean(axis=1)
        assert [None if np.isnan(v) else pytest.approx(v, abs=1e-9) for v in means] == expected


@pytest.mark.parametrize("rule", ["detectron2", "mmseg", "sceneparsing"])
def test_iou_is_that_of_the_drawn_images(rule: Any) -> None:
    generator = np.random.default_rng(0)
    maps = [generator.integers(0, 3, (2, 5, 5)) for _ in range(4)]
    maps[0][0][:] = 2  # so that some resample lacks a class
    singles = []
    for truth, found in maps:
        singles.append(one := ConfusionMatrix(4))
        one.add(truth, found)
    rows = [
        (i, k, one.hits[k], one.truth_pixels[k], one.predicted_pixels[k])
        for i, one in enumerate(singles)
        for k in range(4)
    ]
    table = np.array(rows)
    counts = ImageCounts(
        columns=("intersection", "truth", "predicted"),
        images=table[:, 0],
        classes=table[:, 1],
        values=table[:, 2:].astype(float),
    )
    weights = draws(4, 5, seed=2)
    found = resampled_qualities(counts, 4, weights, rule)
    for n, drawn in enumerate(weights):
        total = ConfusionMatrix(4)
        for one, count in zip(singles, drawn.tolist(), strict=True):
            for _ in range(count):
                total.merge(one)
        scores = score_semantic(total, [Category(id=k, name=n) for k, n in enumerate(NAMES)], rule=rule)
        assert np.nanmean(found["IoU"][n]) == pytest.approx(scores.metrics["mIoU"])
        assert np.nanmean(found["ACC"][n]) == pytest.approx(scores.metrics["mACC"])
        for name in ("fwIoU", "pACC"):
            assert found[name][n] == pytest.approx(scores.metrics[name])


def test_pq_of_sums() -> None:
    counts = ImageCounts(
        columns=("tp", "fp", "fn", "iou"),
        images=np.array([0, 1, 1]),
        classes=np.array([0, 0, 1]),
        values=np.array([[1.0, 0, 1, 0.8], [2, 2, 0, 1.5], [0, 1, 0, 0]]),
    )
    found = resampled_qualities(counts, 3, np.array([[1, 1], [2, 0]], np.int32), "")
    np.testing.assert_allclose(found["PQ"][0], [2.3 / (3 + 1 + 0.5), 0.0, np.nan])
    np.testing.assert_allclose(found["PQ"][1], [1.6 / (2 + 1), np.nan, np.nan])
    np.testing.assert_allclose(found["SQ"][0], [2.3 / 3, 0.0, np.nan])
    np.testing.assert_allclose(found["RQ"][0], [3 / (3 + 1 + 0.5), 0.0, np.nan])


def test_draws_are_seeded_and_complete() -> None:
    one = draws(7, 50, seed=4)
    assert (one.sum(axis=1) == 7).all()
    assert (one == draws(7, 50, seed=4)).all()
    assert (one != draws(7, 50, seed=5)).any()


def test_interval_holds_the_middle() -> None:
    low, high = interval(np.arange(1001.0)) or (0, 0)
    assert (low, high) == pytest.approx((25, 975))
    assert interval(np.full(100, np.nan)) is None


def test_a_class_of_one_image_has_no_interval() -> None:
    """Each resample that holds it says the same: no width, and nothing is known all the same."""
    there = draws(50, 200, seed=0)[:, 0] > 0
    assert interval(np.where(there, 0.6, np.nan)) is None
    often = draws(50, 200, seed=0)[:, :8].sum(axis=1) > 0
    assert interval(np.where(often, 0.6, np.nan)) is not None
