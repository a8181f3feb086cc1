"""Input that is wrong is told by a typed error or counted, never scored in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eval.metrics import (
    ENGINES,
    WARNINGS,
    Category,
    EngineName,
    LabelCoding,
    score_coco,
    score_label_files,
    score_lvis,
    score_panoptic_files,
    warning_lines,
)
from ovperception.errors import InvalidDataset, InvalidParameter, MissingFile
from ovperception.rle import RLE


def mask(top: int = 2, height: int = 20, width: int = 30) -> dict:
    pixels = np.zeros((height, width), bool)
    pixels[top : top + 6, 3:12] = True
    return dict(RLE.encode(pixels).to_coco())


def truth() -> dict[str, Any]:
    return {
        "images": [
            {"id": i, "height": 20, "width": 30, "neg_category_ids": [2], "not_exhaustive_category_ids": []}
            for i in (4, 7)
        ],
        "annotations": [
            {
                "id": 10 + i,
                "image_id": i,
                "category_id": 1,
                "bbox": [3, 2, 9, 6],
                "area": 54,
                "iscrowd": 0,
                "segmentation": mask(),
            }
            for i in (4, 7)
        ],
        "categories": [{"id": i, "name": f"c{i}", "frequency": "f"} for i in (1, 2)],
    }


def results() -> list[dict[str, Any]]:
    return [
        {"image_id": i, "category_id": 1, "bbox": [3, 2, 9, 6], "score": s, "segmentation": mask()}
        for i, s in ((4, 0.9), (7, 0.8))
    ]


def spoiled(rows: list[dict], field: str, value: object) -> list[dict]:
    if value is KeyError:
        del rows[1][field]
    else:
        rows[1][field] = value
    return rows


@pytest.mark.parametrize("score", [score_coco, score_lvis])
@pytest.mark.parametrize("iou", ["bbox", "segm", "boundary"])
def test_all_found(score: Callable, iou: str) -> None:
    found = score(truth(), results(), iou=iou)
    assert found.metrics["AP"] == pytest.approx(1)
    assert (found.images, found.warnings) == (2, {})


@pytest.mark.parametrize(
    ("iou", "field", "value", "message"),
    [
        ("bbox", "score", float("nan"), r"finite.*NaN"),
        ("bbox", "score", float("inf"), "finite"),
        ("bbox", "score", "0.5", "not a number"),
        ("bbox", "score", KeyError, 'no "score"'),
        ("bbox", "score", None, "not a number"),
        ("bbox", "image_id", 8, "does not list"),
        ("bbox", "image_id", 4.5, "not a whole number"),
        ("bbox", "category_id", True, "not a number"),
        ("bbox", "bbox", [1, 2, 3], "not a box"),
        ("bbox", "bbox", [1, 2, "3", 4], "not a box"),
        ("bbox", "bbox", [1, 2, -3, 4], "negative side"),
        ("bbox", "bbox", [1, float("nan"), 3, 4], "finite"),
        ("bbox", "bbox", KeyError, 'no "bbox"'),
        ("segm", "segmentation", KeyError, "This has no mask"),
        ("segm", "segmentation", [[1, 2, 3, 4, 5, 6]], "Polygons are no masks"),
        ("segm", "segmentation", mask(height=30, width=20), "not of the size of its image"),
        ("segm", "segmentation", {"size": [20, 30], "counts": "zzzz"}, "COCO"),
        ("segm", "segmentation", {"size": [20, 30], "counts": ""}, "do not fill"),
        ("segm", "segmentation", {"size": [20, 30], "counts": [5, 5]}, "do not fill"),
        ("segm", "segmentation", {"size": [20, 30], "counts": mask()["counts"][:-1]}, "mask"),
        ("segm", "segmentation", {"size": [20, 30], "counts": "é"}, "do not fill"),
        ("segm", "segmentation", {"counts": "zzzz"}, "not COCO run-length"),
    ],
)
def test_spoiled_results(iou: str, field: str, value: object, message: str) -> None:
    with pytest.raises(InvalidDataset, match=message) as caught:
        score_coco(truth(), spoiled(results(), field, value), iou=iou)
    assert caught.value.field.startswith(("results[1]", f"results.{field}"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["images"].append(t["images"][0]), "id of the images is given twice"),
        (lambda t: t["categories"].append(t["categories"][0]), "id of the categories is given twice"),
        (lambda t: t.pop("annotations"), 'no "annotations"'),
        (lambda t: t["annotations"].append(3), "not an object"),
        (lambda t: t["annotations"][0].pop("image_id"), 'no "image_id"'),
        (lambda t: t["annotations"][0].update(area=float("nan")), "finite"),
        (lambda t: t["annotations"][0].update(segmentation=mask(height=21)), "not of the size"),
        (lambda t: t["annotations"][0].update(segmentation=[]), "no mask"),
        (lambda t: t["images"][0].pop("height") and _polygon(t), "Polygons need the size"),
    ],
)
def test_spoiled_annotations(change: Callable[[dict], object], message: str) -> None:
    expected = truth()
    change(expected)
    with pytest.raises(InvalidDataset, match=message):
        score_coco(expected, results(), iou="segm")


def test_faults_name_their_file(tmp_path: Path) -> None:
    truths, answers = tmp_path / "truth.json", tmp_path / "answers.json"
    truths.write_text(json.dumps(truth()))
    for rows in (spoiled(results(), "score", float("nan")), spoiled(results(), "category_id", 4.5)):
        answers.write_text(json.dumps(rows))
        with pytest.raises(InvalidDataset, match=f"^{answers}: This ") as caught:
            score_coco(truths, answers)
        assert caught.value.field.startswith("results[1].")
    expected = truth()
    expected["annotations"][1]["area"] = "much"
    truths.write_text(json.dumps(expected))
    with pytest.raises(InvalidDataset, match=f"^{truths}: This area is not a number") as caught:
        score_coco(truths, results())
    assert caught.value.field == "annotations[1].area"
    truths.write_text(json.dumps(expected)[:-9])
    with pytest.raises(InvalidDataset, match=r"^truth\.json is cut short"):
        score_coco(truths, results())


def _polygon(expected: dict) -> None:
    expected["annotations"][0]["segmentation"] = [[3, 2, 12, 2, 12, 8, 3, 8]]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("iou", ["bbox", "segm"])
def test_id_zero_and_ids_given_twice_lose_nothing(iou: str, engine: EngineName) -> None:
    for ids, warning in (((0, 5), "annotation_id_zero"), ((5, 5), "duplicate_annotation_id")):
        expected = truth()
        for row, i in zip(expected["annotations"], ids, strict=True):
            row["id"] = i
        found = score_coco(expected, results(), iou=iou, engine=engine)
        assert found.metrics["AP"] == pytest.approx(1)
        assert found.warnings == {warning: 1}
    assert "pycocotools" in warning_lines({"annotation_id_zero": 1})[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_empty_answers_are_zero_and_said(engine: EngineName) -> None:
    for iou in ("bbox", "segm"):
        found = score_coco(truth(), [], iou=iou, engine=engine)
        assert found.metrics["AP"] == found.metrics["AR100"] == 0
        assert found.warnings == {"no_results": 1}
        assert score_lvis(truth(), [], iou=iou, engine=engine, fixed=True).metrics["AP"] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_no_object_is_no_number(engine: EngineName) -> None:
    expected = truth() | {"annotations": []}
    for found in (score_coco(expected, results(), engine=engine), score_lvis(expected, [], engine=engine)):
        assert set(found.metrics.values()) == {None}


@pytest.mark.parametrize(
    ("row", "warning"),
    [
        ({"category_id": 3}, "result_of_unknown_category"),
        ({"score": 1.5}, "score_out_of_range"),
        ({"bbox": [1, 1, 0, 5]}, "degenerate_box"),
    ],
)
def test_oddities_are_counted(row: dict, warning: str) -> None:
    odd = [*results(), results()[0] | {"score": 0.1} | row]
    found = score_coco(truth(), odd)
    assert found.warnings == {warning: 1}


def test_images_without_results_are_counted() -> None:
    found = score_coco(truth(), results()[:1])
    assert found.warnings == {"image_without_results": 1}
    assert found.metrics["AR100"] == 0.5


def test_selections_leave_out_and_count() -> None:
    found = score_coco(truth(), results(), image_ids=[7])
    assert (found.images, found.metrics["AP"]) == (1, pytest.approx(1))
    assert found.warnings == {"annotation_outside_selection": 1, "result_outside_selection": 1}
    with pytest.raises(InvalidDataset, match="asked for"):
        score_coco(truth(), results(), image_ids=[9])


def test_results_by_index_of_the_class() -> None:
    with pytest.raises(InvalidDataset, match="not the index"):
        score_coco(truth(), [row | {"category_id": 0} for row in results()])


def test_lvis_needs_frequencies() -> None:
    expected = truth()
    del expected["categories"][0]["frequency"]
    with pytest.raises(InvalidDataset, match="frequency"):
        score_lvis(expected, results())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"image_id": 4, "sco', "cut short"),
        (b"[1, 2", "cut short"),
        (b"{,}", "not JSON"),
        (b"", "cut short"),
        (b"\xff\xfe[", "not JSON"),
        (b"\x1f\x8b\x08\x00", "cut short"),
        (b"{}", "not a list"),
        (b"[3]", "not an object"),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(InvalidDataset, match=message):
        score_coco(truth(), path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        score_coco(tmp_path / "none.json", [])
    with pytest.raises(InvalidParameter, match="hotcoco"):
        score_coco(truth(), results(), engine="mine")
    with pytest.raises(InvalidParameter, match="overlap"):
        score_coco(truth(), results(), iou="keypoints")


def write_panoptic(folder: Path, name: str, ids: np.ndarray, segments: list[dict], image_id: int = 1) -> Path:
    (folder / name).mkdir()
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    cv2.imwrite(str(folder / name / "1.png"), rgb[..., ::-1])
    content = {
        "images": [{"id": 1}],
        "annotations": [{"image_id": image_id, "file_name": "1.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "a", "isthing": 1}],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def test_panoptic_files(tmp_path: Path) -> None:
    ids = np.zeros((4, 6), int)
    ids[:2] = 70000
    segments = [{"id": 70000, "category_id": 1, "iscrowd": 0}]
    expected = write_panoptic(tmp_path, "truth", ids, segments)
    assert score_panoptic_files(expected, expected).metrics["PQ"] == 1
    cases = {
        "undrawn": (ids, [*segments, {"id": 2, "category_id": 1}], 1, "listed only: .2"),
        "unlisted": (ids, [], 1, "drawn only: .70000"),
        "unknown": (ids, [{"id": 70000, "category_id": 9}], 1, "no known class"),
        "smaller": (ids[:3], segments, 1, "not of the size"),
        "other": (ids, segments, 2, "not in the results"),
    }
    for name, (drawn, listed, image_id, message) in cases.items():
        found = write_panoptic(tmp_path, name, drawn, listed, image_id)
        with pytest.raises(InvalidDataset, match=message):
            score_panoptic_files(expected, found)
    (tmp_path / "truth" / "1.png").write_bytes(b"no picture")
    with pytest.raises(InvalidDataset, match="cannot be decoded"):
        score_panoptic_files(expected, expected)
    (tmp_path / "truth" / "1.png").unlink()
    with pytest.raises(MissingFile):
        score_panoptic_files(expected, expected)


def test_label_files(tmp_path: Path) -> None:
    classes = [Category(id=i, name=str(i)) for i in range(3)]
    for name in ("truth", "found"):
        (tmp_path / name / "city").mkdir(parents=True)
    truth_file, found_file = (tmp_path / name / "city/1.png" for name in ("truth", "found"))
    ade = LabelCoding(offset=-1, special=frozenset({0}))

    def score(true: object, answer: object, **settings: Any) -> Any:
        cv2.imwrite(str(truth_file), np.array(true, np.uint8))
        cv2.imwrite(str(found_file), np.array(answer, np.uint8))
        return score_label_files(tmp_path / "truth", tmp_path / "found", classes, **settings)

    found = score([[0, 0, 1, 255]], [[0, 1, 1, 7]])
    assert found.metrics["mIoU"] == pytest.approx(0.5)
    found = score([[1, 1, 2, 0]], [[1, 0, 2, 2]], truth_coding=ade, results_coding=ade)
    assert found.metrics["mIoU"] == pytest.approx(0.75)
    assert found.warnings == {"undecided_pixel": 1}
    lookup = LabelCoding(lookup={7: 0, 8: -1, 11: 1})
    found = score([[7, 8, 11, 255]], [[0, 0, 0, 0]], truth_coding=lookup)
    assert found.metrics["pACC"] == pytest.approx(0.5)
    with pytest.raises(InvalidDataset, match="no classes"):
        score([[9]], [[0]], truth_coding=lookup)
    for answer, message in ([[0, 3, 0, 0]], "no class"), ([[0, 0]], "not of the size"):
        with pytest.raises(InvalidDataset, match=message):
            score([[0, 0, 1, 255]], answer)
    with pytest.raises(InvalidDataset, match="one value a pixel"):
        score([[0]], [[[0, 0, 1]]])
    found_file.rename(found_file.with_name("2.png"))
    with pytest.raises(MissingFile, match="no answer to 1 of 1"):
        score_label_files(tmp_path / "truth", tmp_path / "found", classes)


def test_every_warning_has_a_text() -> None:
    source = "".join(p.read_text() for p in (Path(__file__).parents[3] / "eval").rglob("*.py"))
    for name in WARNINGS:
        assert source.count(f'"{name}"') >= 2, name


@pytest.mark.parametrize("engine", ENGINES)
def test_lvis_passes_over_what_has_no_area(engine: EngineName) -> None:
    """Of objects and of answers, as lvis-api does; COCO counts both."""
    content, rows = truth(), results()
    rows[0] |= {"score": 0.5}
    rows[1] |= {"score": 0.9, "bbox": [3, 2, 0, 6]}
    content["annotations"][1]["area"] = 0
    found = score_lvis(content, rows[:2], iou="bbox", engine=engine)
    assert found.metrics["AP50"] == pytest.approx(1)
    assert found.warnings["annotation_of_no_area"] == found.warnings["degenerate_box"] == 1
    assert score_coco(content, rows[:2], iou="bbox", engine=engine).metrics["AP50"] < 0.3
