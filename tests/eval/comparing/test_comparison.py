"""Two runs are compared if they can be, with the numbers of both and intervals around their difference."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from eval.comparing import compare
from eval.outcome import ClassRow, ImageCounts, ImageScore, Outcome, RunFacts
from ovperception.errors import InvalidParameter
from tests.eval.comparing.runs import detection_run


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Outcome, Outcome, tuple[Path, Path]]:
    folders = tmp_path / "a", tmp_path / "b"
    return detection_run(folders[0], seed=1), detection_run(folders[1], seed=2, better=0.29), folders


def test_numbers_and_intervals(pair: tuple[Outcome, Outcome, tuple[Path, Path]]) -> None:
    first, second, folders = pair
    found = compare(first, second, folders, resamples=300)
    assert found.no_interval == ""
    metrics = {row.name: row for row in found.metrics}
    for name in ("AP", "AP50", "AP50_novel", "AP50_base", "AP_base", "AP75", "AP50_all"):
        row = metrics[name]
        assert (row.a, row.b) == (first.metrics[name], second.metrics[name])
        assert row.low is not None
        assert row.high is not None
        assert row.low < row.difference < row.high
    assert metrics["AP50"].is_clear, "a run that misses and imagines less is better beyond chance"
    assert metrics["AR1"].low is None, "recall is not resampled"
    score = metrics["mean score of an image"]
    assert (score.difference, score.low, score.high) == pytest.approx((0.29, 0.29, 0.29))
    gains = [row.difference for row in found.per_class if row.difference is not None]
    assert gains == sorted(gains, reverse=True)
    assert [row.name for row in found.per_class if row.difference is None] == ["ghost"]
    assert ("model", "m1", "m2") in found.differs


def test_a_run_beside_itself_does_not_differ(pair: tuple[Outcome, Outcome, tuple[Path, Path]]) -> None:
    first, _, folders = pair
    # Other order of images and classes, the same run.
    turned = dataclasses.replace(first, images=first.images[::-1], per_class=first.per_class[::-1])
    found = compare(first, turned, (folders[0], folders[0]), resamples=100)
    assert found.no_interval == ""
    rows = [row for row in (*found.metrics, *found.per_class) if row.low is not None]
    assert len(rows) > 8
    assert all(abs(row.low) < 1e-12 and abs(row.high) < 1e-12 for row in rows)
    assert not any(row.is_clear for row in rows if row.low == row.high == 0)


def test_seed_decides(pair: tuple[Outcome, Outcome, tuple[Path, Path]]) -> None:
    first, second, folders = pair
    one, again, other = (compare(first, second, folders, resamples=100, seed=s) for s in (1, 1, 2))
    assert one == again
    assert one.metrics[0].low != other.metrics[0].low


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"protocol": "coco_box"}, "protocol"),
        ({"facts": RunFacts(data="lvis")}, "data"),
        ({"images": ()}, "images"),
        ({"per_class": ()}, "classes"),
        ({"kind": "lvis"}, "kind of the numbers"),
    ],
)
def test_what_cannot_be_compared(
    pair: tuple[Outcome, Outcome, tuple[Path, Path]], change: dict[str, object], field: str
) -> None:
    first, second, folders = pair
    with pytest.raises(InvalidParameter, match="cannot be compared") as caught:
        compare(first, dataclasses.replace(second, **change), folders)
    assert caught.value.field == field


def test_too_few_resamples(pair: tuple[Outcome, Outcome, tuple[Path, Path]]) -> None:
    with pytest.raises(InvalidParameter, match="Too few"):
        compare(*pair, resamples=5)


def test_files_that_changed_give_no_intervals(pair: tuple[Outcome, Outcome, tuple[Path, Path]]) -> None:
    first, second, folders = pair
    told = dataclasses.replace(second, metrics={**second.metrics, "AP": 0.9})
    found = compare(first, told, folders, resamples=100)
    assert "not 0.9" in found.no_interval
    assert all(row.low is None for row in found.per_class)
    (folders[1] / "results.json").unlink()
    found = compare(first, second, folders, resamples=100)
    assert "results.json" in found.no_interval
    # What needs no files is there all the same.
    assert found.metrics[-1].low is not None


def maps_run(seed: int) -> Outcome:
    generator = np.random.default_rng(seed)
    images, classes = (axis.ravel() for axis in np.indices((30, 2)))
    truth = np.full(60, 100.0)
    hits = generator.integers(20 + 40 * seed, 50 + 40 * seed, 60).astype(float)
    counts = ImageCounts(
        columns=("intersection", "truth", "predicted"),
        images=images,
        classes=classes,
        values=np.stack([hits, truth, truth], axis=1),
    )
    sums = [counts.values[classes == k].sum(axis=0) for k in (0, 1)]
    iou = [float(h / (t + p - h)) for h, t, p in sums]
    return Outcome(
        protocol="ade20k_150",
        title="",
        kind="semantic",
        headline="mIoU",
        report_line="",
        metrics={
            "mIoU": float(np.mean(iou)),
            "mIoU_novel": iou[1],
            "pACC": float(hits.mean() / 100),
            "x": 0.5,
        },
        rules={"averaging": "detectron2 (classes with ground truth)"},
        per_class=tuple(
            ClassRow(id=k, name=n, groups=(g,), values={"IoU": iou[k]})
            for k, (n, g) in enumerate((("sky", "base"), ("sea", "novel")))
        ),
        images=tuple(ImageScore(image_id=i, file_name="", path="", score=None) for i in range(30)),
        counts=counts,
    )


def test_maps_need_no_files() -> None:
    found = compare(maps_run(0), maps_run(1), (Path("a"), Path("b")), resamples=200)
    metrics = {row.name: row for row in found.metrics}
    assert set(metrics) == {"mIoU", "mIoU_novel", "pACC", "x"}
    assert metrics["mIoU"].is_clear
    assert metrics["mIoU"].low < metrics["mIoU"].difference < metrics["mIoU"].high
    assert metrics["mIoU_novel"].low == next(r for r in found.per_class if r.name == "sea").low
    assert metrics["pACC"].low < metrics["pACC"].difference < metrics["pACC"].high
    assert metrics["x"].low is None
