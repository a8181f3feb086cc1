"""PQ by hand, and equal to panopticapi on its own sample."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.panoptic_quality import PanopticQuality, PanopticSegment, Quality
from ovperception.errors import InvalidRegions

Segments = list[PanopticSegment]


def quality(truth: list, true: Segments, found: list, predicted: Segments) -> PanopticQuality:
    counted = PanopticQuality()
    counted.add(np.array(truth), true, np.array(found), predicted)
    return counted


def test_by_hand() -> None:
    truth = [[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]
    found = [[7, 7, 7, 8], [8, 8, 8, 8], [0, 0, 9, 9]]
    counted = quality(
        truth,
        [PanopticSegment(1, 10), PanopticSegment(2, 10), PanopticSegment(3, 20)],
        found,
        [PanopticSegment(7, 10), PanopticSegment(8, 10), PanopticSegment(9, 20)],
    )
    # 10: IoU 3/4 and 4/5; 20: IoU exactly 1/2, which is no match
    assert counted.of([10]) == Quality(pq=pytest.approx((0.75 + 0.8) / 2), sq=0.775, rq=1, classes=1)
    assert counted.of([20]) == Quality(pq=0, sq=0, rq=0, classes=1)
    assert counted.of() == Quality(pq=pytest.approx(0.3875), sq=pytest.approx(0.3875), rq=0.5, classes=2)
    assert counted.of([30]) is None
    assert counted.of([10, 30]) == counted.of([10])


def test_void_pixels_are_left_out_of_the_union_and_excuse() -> None:
    truth = [[1, 1, 0, 0, 0, 0]]
    found = [[5, 5, 5, 6, 6, 6]]
    segments = [PanopticSegment(5, 10), PanopticSegment(6, 10)]
    counted = quality(truth, [PanopticSegment(1, 10)], found, segments)
    assert counted.of() == Quality(pq=1, sq=1, rq=1, classes=1)


def test_half_on_void_is_no_excuse() -> None:
    counted = quality([[1, 0]], [PanopticSegment(1, 10)], [[5, 5]], [PanopticSegment(5, 20)])
    assert (counted.tallies[20].fp, counted.tallies[10].fn) == (1, 1)


def test_a_crowd_excuses_its_own_class_only() -> None:
    truth = [[1, 1, 1, 1]]
    crowd = [PanopticSegment(1, 10, is_crowd=True)]
    same = quality(truth, crowd, [[5, 5, 5, 0]], [PanopticSegment(5, 10)])
    assert same.of() is None  # neither matched, nor missed, nor false
    other = quality(truth, crowd, [[5, 5, 5, 0]], [PanopticSegment(5, 20)])
    assert other.tallies[20].fp == 1


def test_merging_is_adding() -> None:
    first = quality([[1, 1]], [PanopticSegment(1, 10)], [[1, 1]], [PanopticSegment(1, 10)])
    second = quality([[1, 1]], [PanopticSegment(1, 10)], [[0, 0]], [])
    first.merge(second)
    assert first.of() == Quality(pq=pytest.approx(2 / 3), sq=1, rq=pytest.approx(2 / 3), classes=1)


@pytest.mark.parametrize(
    ("ids", "segments"),
    [
        ([[1, 2]], [PanopticSegment(1, 10)]),
        ([[1, 1]], [PanopticSegment(1, 10), PanopticSegment(2, 10)]),
        ([[1, 1]], [PanopticSegment(1, 10), PanopticSegment(1, 20)]),
    ],
)
def test_a_map_and_its_list_must_agree(ids: list, segments: Segments) -> None:
    with pytest.raises(InvalidRegions, match="not those of the map"):
        quality([[1, 1]], [PanopticSegment(1, 10)], ids, segments)


def test_maps_of_two_sizes() -> None:
    with pytest.raises(InvalidRegions, match="not of the size"):
        quality([[1]], [PanopticSegment(1, 10)], [[1, 1]], [PanopticSegment(1, 10)])


def _ids(path: Path) -> np.ndarray:
    bgr = cv2.imread(str(path)).astype(np.int64)
    return bgr[..., 2] + 256 * bgr[..., 1] + 65536 * bgr[..., 0]


def _read(folder: Path, name: str) -> dict[int, tuple[np.ndarray, Segments]]:
    return {
        row["image_id"]: (
            _ids(folder / name / row["file_name"]),
            [
                PanopticSegment(s["id"], s["category_id"], bool(s.get("iscrowd")))
                for s in row["segments_info"]
            ],
        )
        for row in json.loads((folder / f"{name}.json").read_text())["annotations"]
    }


@pytest.mark.parity
@pytest.mark.parametrize("change", ["identity", "shift8", "drop_every_4th", "relabel_every_3rd", "coarse16"])
def test_equal_to_panopticapi(shared_dir: Path, change: str) -> None:
    expected = json.loads((shared_dir / "eval/goldens.json").read_text())["panopticapi_sample"][change]
    data = shared_dir / "eval/data"
    sample = data / "cocodataset__panopticapi"
    categories = json.loads((sample / "panoptic_coco_categories.json").read_text())
    truth = _read(sample / "sample_data", "panoptic_examples")
    found = truth if change == "identity" else _read(data / "derived", f"panoptic_{change}")
    counted = PanopticQuality()
    for image, (ids, segments) in truth.items():
        counted.add(ids, segments, *found[image])
    names = {c["name"]: c["id"] for c in categories}
    for name, (tp, fp, fn, iou) in expected["counts"].items():
        tally = counted.tallies[names[name]]
        assert (tally.tp, tally.fp, tally.fn) == (tp, fp, fn), name
        assert tally.iou == pytest.approx(iou, abs=1e-12), name
    for part, wanted in (("All", (0, 1)), ("Things", (1,)), ("Stuff", (0,))):
        mean = counted.of([c["id"] for c in categories if c["isthing"] in wanted])
        assert mean is not None
        assert mean.classes == expected[part]["n"]
        for key in ("pq", "sq", "rq"):
            assert getattr(mean, key) == pytest.approx(expected[part][key], abs=1e-12), (part, key)
