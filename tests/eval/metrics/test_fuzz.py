"""Any input, against the definitions written out plainly; small random sets, against pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics import (
    Category,
    ConfusionMatrix,
    FewShotIoU,
    PanopticQuality,
    PanopticSegment,
    score_coco,
    score_lvis,
    score_semantic,
)
from eval.metrics.boundary import boundary
from eval.metrics.run_lengths import check_masks
from ovperception.errors import InvalidDataset, OVPError
from ovperception.rle import RLE

CLASSES = [Category(id=10 + i, name=str(i), is_thing=i < 2) for i in range(3)]
few = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def plain_pq(images: list[tuple]) -> dict[int, list[float]]:
    """tp, fp, fn and the sum of IoU of each class, by masks and loops."""
    counts: dict[int, list[float]] = {c.id: [0, 0, 0, 0.0] for c in CLASSES}
    for truth, true, found, predicted in images:
        void = truth == 0
        matched = set()
        for s in true:
            for p in predicted:
                if s.is_crowd or s.category_id != p.category_id:
                    continue
                a, b = truth == s.id, found == p.id
                iou = (a & b).sum() / (a | (b & ~void)).sum()
                if iou > 0.5:
                    counts[s.category_id][0] += 1
                    counts[s.category_id][3] += iou
                    matched |= {("t", s.id), ("p", p.id)}
            if not s.is_crowd and ("t", s.id) not in matched:
                counts[s.category_id][2] += 1
        for p in predicted:
            if ("p", p.id) in matched:
                continue
            crowds = [s.id for s in true if s.is_crowd and s.category_id == p.category_id]
            excuse = void | (truth == crowds[-1]) if crowds else void
            if ((found == p.id) & excuse).sum() / (found == p.id).sum() <= 0.5:
                counts[p.category_id][1] += 1
    return {i: row for i, row in counts.items() if any(row)}


def random_map(rng: np.random.Generator, *, crowds: bool) -> tuple[np.ndarray, list[PanopticSegment]]:
    ids = np.kron(rng.integers(0, 5, (3, 4)), np.ones((2, 2), int)) * 70_001
    flips = rng.random(ids.shape) < 0.1
    ids[flips] = 0
    return ids, [
        PanopticSegment(int(i), int(rng.choice([10, 11, 12])), bool(crowds and rng.random() < 0.3))
        for i in rng.permutation(np.unique(ids[ids > 0]))
    ]


@few
@given(seeds)
def test_panoptic_quality(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(3):
        truth, true = random_map(rng, crowds=True)
        found, predicted = random_map(rng, crowds=False)
        if rng.random() < 0.5:  # mostly right
            found = np.where(rng.random(truth.shape) < 0.8, truth, found)
            category = {s.id: s.category_id for s in (*predicted, *true)}
            predicted = [PanopticSegment(int(i), category[int(i)]) for i in np.unique(found[found > 0])]
        images.append((truth, true, found, predicted))
    whole, first, second = (PanopticQuality(CLASSES) for _ in range(3))
    for k, image in enumerate(images):
        whole.add(*image)
        (first if k % 2 else second).add(*image)
    merged = first + PanopticQuality.from_arrays(CLASSES, second.to_arrays())
    for quality in (whole, merged):
        tallies = {i: [t.tp, t.fp, t.fn, t.iou] for i, t in quality.tallies.items()}
        assert tallies == {i: pytest.approx(row, abs=1e-12) for i, row in plain_pq(images).items()}
        assert quality.scores().images == 3


@few
@given(seeds, st.sampled_from([1, 3, 300]), st.sampled_from([np.uint8, np.uint16, np.int32, np.int64]))
def test_confusion(seed: int, count: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    if count == 300 and dtype == np.uint8:
        dtype = np.uint16
    labels = [int(i) for i in rng.integers(0, count, 4)]
    truth, found = (np.kron(rng.choice([*labels, 255 + 300], (5, 7)), np.ones((2, 3), int)) for _ in "ab")
    truth, found = np.where(truth == 555, 255, truth), np.where(found == 555, 255, found)
    if count == 300:  # 255 is a class there
        truth[truth == 255], found[found == 255] = 999, 999
    special = 999 if count == 300 else 255
    expected = np.zeros((count, count + 1), np.int64)
    for t, f in zip(truth.ravel(), found.ravel(), strict=True):
        if t != special:
            expected[t, count if f == special else f] += 1
    confusion, part = ConfusionMatrix(count), ConfusionMatrix(count)
    for half, rows in ((confusion, slice(0, 4)), (part, slice(4, None))):
        half.add(
            truth[rows].astype(dtype),
            found[rows].astype(dtype),
            ignore_label=special,
            undecided_label=special,
        )
    total = confusion + ConfusionMatrix.from_arrays(part.to_arrays())
    assert (total.counts == expected).all()
    assert total.images == 2
    if expected.any():
        union = expected.sum(1) + expected[:, :-1].sum(0) - np.diagonal(expected)
        ious = [expected[i, i] / union[i] for i in range(count) if expected[i].sum()]
        classes = [Category(id=i, name="") for i in range(count)]
        assert score_semantic(total, classes).metrics["mIoU"] == pytest.approx(np.mean(ious))


def test_a_label_of_no_class_is_not_undecided() -> None:
    with pytest.raises(OVPError, match="no class"):
        ConfusionMatrix(3).add(np.zeros((1, 2), int), np.array([[0, 3]]))


@few
@given(seeds)
def test_few_shot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    episodes, half = FewShotIoU(CLASSES), FewShotIoU(CLASSES)
    sums = np.zeros((2, 2))
    for k in range(4):
        truth, found, judged = (rng.random((6, 5)) < p for p in (0.5, 0.5, 0.9))
        (episodes if k % 2 else half).add(10, truth, found, judged=judged)
        for side, (a, b) in enumerate(((~truth, ~found), (truth, found))):
            sums[side] += ((a & b & judged).sum(), ((a | b) & judged).sum())
    metrics = (episodes + half).scores().metrics
    assert metrics["mIoU"] == pytest.approx(sums[1, 0] / sums[1, 1])
    assert metrics["FB-IoU"] == pytest.approx((sums[:, 0] / sums[:, 1]).mean())


@few
@given(seeds, st.integers(1, 3))
def test_boundary(seed: int, width: int) -> None:
    mask = (np.random.default_rng(seed).random((9, 8)) < 0.8).astype(np.uint8)
    padded = np.pad(mask, width)
    expected = [
        [mask[y, x] and not padded[y : y + 2 * width + 1, x : x + 2 * width + 1].all() for x in range(8)]
        for y in range(9)
    ]
    assert boundary(mask, width).astype(bool).tolist() == np.array(expected, bool).tolist()


@few
@given(seeds, st.data())
def test_masks_checked_together(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    masks = [rng.random((h, w)) < p for h, w, p in ((7, 5, 0.5), (90, 40, 0.01), (1, 1, 1), (30, 9, 0))]
    rles = [dict(RLE.encode(mask).to_coco()) for mask in masks]
    sizes = np.array([mask.shape for mask in masks])
    _, areas = check_masks(rles, sizes, "results")
    assert areas.tolist() == [mask.sum() for mask in masks]
    # One character changed: told, unless what it makes is a mask again.
    counts = rles[1]["counts"]
    at = data.draw(st.integers(0, len(counts) - 1))
    rles[1]["counts"] = counts[:at] + chr(data.draw(st.integers(48, 111))) + counts[at + 1 :]
    try:
        area = RLE.from_coco(rles[1]).area
    except OVPError:
        with pytest.raises(InvalidDataset) as caught:
            check_masks(rles, sizes, "results")
        assert caught.value.field == "results[1].segmentation"
    else:
        assert check_masks(rles, sizes, "results")[1][1] == area


def random_set(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A tiny set with ties, crowds, id 0, images without objects, boxes without width, and LVIS's fields."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 4))
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []

    def row(image: int, category: int, box: list[float]) -> dict[str, Any]:
        x, y, w, h = (round(v) for v in box)
        pixels = np.zeros((50, 60), bool)
        pixels[y : y + max(h, 1), x : x + max(w, 1)] = True
        rle = dict(RLE.encode(pixels).to_coco())
        return {"image_id": image, "category_id": category, "bbox": box, "segmentation": rle}

    for k in range(int(rng.integers(1, 6))):
        picks = [int(c) + 1 for c in np.flatnonzero(rng.random(classes) < 0.5)]
        images.append({"id": 3 * k, "height": 50, "width": 60, "neg_category_ids": picks})
        images[-1]["not_exhaustive_category_ids"] = [c for c in (1, 2) if rng.random() < 0.2]
        for _ in range(int(rng.integers(0, 6))):
            size = rng.uniform(1, 25, 2).round(1)
            box = [*(rng.uniform(0, 1, 2) * (np.array([60, 50]) - size)).round(1).tolist(), *size.tolist()]
            category = int(rng.integers(1, classes + 1))
            objects.append(row(3 * k, category, box))
            objects[-1] |= {"id": len(objects) - seed % 2, "area": box[2] * box[3]}
            objects[-1]["iscrowd"] = int(rng.random() < 0.15)
            for _ in range(int(rng.integers(0, 4))):
                moved = np.maximum(0, np.array(box) + rng.normal(0, 2, 4)).round(1)
                other = category if rng.random() > 0.2 else int(rng.integers(1, classes + 1))
                found.append(row(3 * k, other, moved.tolist()) | {"score": round(rng.random(), 1)})
    categories = [{"id": c + 1, "name": str(c), "frequency": "rcf"[c]} for c in range(classes)]
    return {"images": images, "annotations": objects, "categories": categories}, found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("iou", ["bbox", "segm"])
def test_engines_agree_bit_by_bit(seed: int, iou: str) -> None:
    truth, found = random_set(seed)
    for score, extra in (
        (score_coco, {"class_agnostic": seed % 3 == 0}),
        (score_lvis, {"fixed": seed % 3 == 1}),
    ):
        ours, theirs = (score(truth, found, iou=iou, engine=e, **extra) for e in ("hotcoco", "pycocotools"))
        assert np.array_equal(ours.curves.precision, theirs.curves.precision)
        assert np.array_equal(ours.curves.recall, theirs.curves.recall)
        assert ours.metrics == theirs.metrics
        assert ours.warnings == theirs.warnings
