"""AP of instances by Cityscapes' rules, beside numbers of its own script and worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eval.metrics import cityscapes_results, cityscapes_truth, score_cityscapes
from ovperception.errors import InvalidDataset, MissingFile
from ovperception.rle import RLE
from tests.eval.metrics.street_scenes import write_street_scenes

GOLDENS = Path(__file__).parents[2] / "data/eval/cityscapes_instances.json"


@pytest.mark.parametrize("seed", [2, 5, 17])
def test_the_script_s_own_numbers(tmp_path: Path, seed: int) -> None:
    """Of cityscapesScripts 2.2.4 over the same files."""
    golden = json.loads(GOLDENS.read_text())[str(seed)]
    truth, results = write_street_scenes(tmp_path, seed)
    content = cityscapes_truth(truth)
    scores = score_cityscapes(content, cityscapes_results(results, content))
    assert scores.metrics == pytest.approx({"AP": golden["AP"], "AP50": golden["AP50"]}, abs=1e-15)
    found = {row.category.name: [row.values["AP"], row.values["AP50"]] for row in scores.per_class}
    assert found.keys() == golden["classes"].keys()
    for name, expected in golden["classes"].items():
        assert found[name] == (expected if expected[0] is None else pytest.approx(expected, abs=1e-15))


def block(left: int, width: int, top: int = 0, height: int = 20) -> dict[str, Any]:
    mask = np.zeros((40, 100), bool)
    mask[top : top + height, left : left + width] = True
    return dict(RLE.encode(mask).to_coco())


def truth(*objects: dict[str, Any], **image: Any) -> dict[str, Any]:
    rows = [{"image_id": 1, "category_id": 26, "area": 1, **row} for row in objects]
    return {
        "images": [{"id": 1, "height": 40, "width": 100, **image}],
        "annotations": [{"id": n, **row} for n, row in enumerate(rows, 1)],
        "categories": [{"id": 26, "name": "car"}, {"id": 24, "name": "person"}],
    }


def answer(score: float, mask: dict[str, Any]) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 26, "score": score, "segmentation": mask}


def ap50(content: dict[str, Any], *answers: dict[str, Any]) -> float | None:
    return score_cityscapes(content, list(answers)).metrics["AP50"]


CAR = {"segmentation": block(0, 20)}
FAR = block(70, 20)
VOID = {"void": block(60, 40)}


def test_the_area_of_the_curve() -> None:
    assert ap50(truth(CAR), answer(0.5, block(0, 20))) == 1
    # Recall 1 at precision 1/2, 0 before: half of each side of the step.
    assert ap50(truth(CAR, **VOID), answer(0.5, block(0, 20)), answer(0.9, block(30, 20))) == 0.5 * (0.5 + 0)
    assert ap50(truth(CAR, {"segmentation": block(30, 20)}), answer(0.5, block(0, 20))) == 0.25 + 0.25
    assert ap50(truth(CAR)) == 0
    assert ap50(truth()) is None


def test_an_overlap_has_to_be_exceeded() -> None:
    assert ap50(truth(CAR), answer(0.5, block(0, 40))) == 0  # exactly one half
    assert ap50(truth(CAR), answer(0.5, block(0, 39))) == 1


def test_all_that_overlap_an_object_are_its_own() -> None:
    content = truth(CAR, {"segmentation": block(0, 20, 20)})
    both = answer(0.9, block(0, 20)), answer(0.7, block(0, 20, 20))
    assert ap50(content, *both) == 1
    # Recall 1/2 at precision 1, then at 1/2, then 1 at 2/3.
    assert ap50(content, *both, answer(0.8, block(0, 19))) == pytest.approx((1 + 1 + 1 / 2 + 2 / 3) / 4)
    best = answer(0.7, block(0, 18)), answer(0.9, block(0, 20))
    assert ap50(content, *best) == ap50(content, *best[::-1])


def test_void_groups_and_small_objects_are_not_judged() -> None:
    right = answer(0.5, block(0, 20))
    false = answer(0.9, FAR)
    assert ap50(truth(CAR), right, false) < 1
    assert ap50(truth(CAR, **VOID), right, false) == 1
    group = {"segmentation": block(60, 40), "iscrowd": 1}
    assert ap50(truth(CAR, group), right, false) == 1
    small = {"segmentation": block(70, 9, 0, 11)}  # 99 pixels
    assert ap50(truth(CAR, small), right) == 1
    assert ap50(truth(CAR, small), right, answer(0.9, small["segmentation"])) == 1
    large = {"segmentation": block(70, 10, 0, 10)}  # 100
    assert ap50(truth(CAR, large), right) < 1


def test_void_counts_from_which_overlap_on() -> None:
    content = truth(CAR, void=block(62, 40))  # 3 of 5 columns of what is false
    scores = score_cityscapes(content, [answer(0.5, block(0, 20)), answer(0.9, block(50, 30))])
    assert scores.metrics["AP50"] == 1
    assert scores.metrics["AP"] == pytest.approx((2 * 1 + 8 * 0.25) / 10)


def test_what_is_odd_is_counted() -> None:
    scores = score_cityscapes(truth(CAR), [answer(0.5, block(0, 0)), answer(0.5, block(0, 20))])
    assert scores.warnings == {"void_not_told": 1, "empty_mask": 1}
    assert scores.metrics["AP"] == 1
    groups = score_cityscapes(truth(CAR, **VOID), [answer(0.5, block(0, 20))], groups={"things": [26]})
    assert groups.metrics == {"AP": 1, "AP50": 1, "AP_things": 1, "AP50_things": 1}
    assert [row.category.id for row in groups.per_class] == [26]


def test_polygons_are_refused() -> None:
    with pytest.raises(InvalidDataset, match="pixels"):
        score_cityscapes(truth({"segmentation": [[0, 0, 20, 0, 20, 20]]}), [answer(0.5, FAR)])


def test_void_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidDataset, match="size"):
        score_cityscapes(truth(CAR, void=dict(RLE.encode(np.ones((3, 3), bool)).to_coco())), [])


@pytest.mark.parametrize(
    ("break_it", "what"),
    [
        (lambda results: next(results.glob("*.txt")).unlink(), "no text file"),
        (lambda results: (results / "ulm_000000_000019_b.txt").touch(), "several"),
        (
            lambda results: (results / "ulm_000000_000019_pred.txt").write_text("masks/a.png 26\n"),
            "no answer",
        ),
        (lambda results: (results / "ulm_000000_000019_pred.txt").write_text("../a.png 26 1\n"), "outside"),
        (lambda results: (results / "ulm_000000_000019_pred.txt").write_text("a.png 26 1\n"), "not exist"),
    ],
)
def test_answers_that_are_not(tmp_path: Path, break_it: Any, what: str) -> None:
    truth, results = write_street_scenes(tmp_path, 0, images=1)
    break_it(results)
    with pytest.raises((MissingFile, InvalidDataset), match=what):
        cityscapes_results(results, cityscapes_truth(truth))


def test_truth_that_is_not(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no instances"):
        cityscapes_truth(tmp_path)
    cv2.imwrite(str(tmp_path / "ulm_000000_000019_gtFine_instanceIds.png"), np.full((4, 4), 77, np.uint8))
    with pytest.raises(InvalidDataset, match="no label"):
        cityscapes_truth(tmp_path)
