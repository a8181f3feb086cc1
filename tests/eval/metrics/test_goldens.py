"""The stored numbers of pycocotools, lvis-api, panopticapi and the mIoU scripts, to the last digit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eval.metrics import (
    ENGINES,
    Category,
    ConfusionMatrix,
    EngineName,
    PanopticQuality,
    PanopticSegment,
    VOCCurve,
    miou,
    score_coco,
    score_lvis,
    score_panoptic_files,
    score_semantic,
    voc_ap,
)
from ovperception.rle import RLE

pytestmark = pytest.mark.parity

# Whether a machine adds up 80,800 entries as the one that wrote the goldens did is numpy's affair.
SAME = {"abs": 1e-15, "rel": 1e-14}
SPLIT = Path(__file__).parents[3] / "ovperception/datasets/vocabularies/ov_coco_48_17.json"
COCO_KEYS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@pytest.fixture(scope="module")
def goldens(shared_dir: Path) -> dict[str, Any]:
    return json.loads((shared_dir / "eval/goldens.json").read_text())


@pytest.fixture(scope="module")
def data(shared_dir: Path) -> Path:
    return shared_dir / "eval/data"


@pytest.fixture(scope="module")
def real(data: Path) -> tuple[Path, Path]:
    truth = data / "MiXaiLL76__faster_coco_eval/tests/dataset/cocoapi/instances_val2014_100.json"
    return truth, data / "cocodataset__cocoapi/results"


def fake(real: tuple[Path, Path], iou: str) -> tuple[Path, Path]:
    kind = "bbox" if iou == "bbox" else "segm"
    return real[0], real[1] / f"instances_val2014_fake{kind}100_results.json"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("iou", ["bbox", "segm"])
def test_coco(goldens: dict, real: tuple[Path, Path], iou: str, engine: EngineName) -> None:
    expected = goldens["coco_val2014_100"][iou]
    found = score_coco(*fake(real, iou), iou=iou, engine=engine)
    assert dict(found.metrics) == pytest.approx(expected["stats"], **SAME)
    assert list(found.metrics) == COCO_KEYS
    for name in ("AP", "AP50"):
        per_class = {row.category.name: row.values[name] for row in found.per_class}
        assert _numbers(per_class) == pytest.approx(_numbers(expected[f"per_class_{name}"]), **SAME)
    agnostic = score_coco(*fake(real, iou), iou=iou, engine=engine, class_agnostic=True)
    assert dict(agnostic.metrics) == pytest.approx(expected["class_agnostic_stats"], **SAME)


def _numbers(values: dict[str, float | None]) -> dict[str, float]:
    return {name: -1 if value is None else value for name, value in values.items()}


def test_boundary(goldens: dict, real: tuple[Path, Path]) -> None:
    expected = goldens["coco_val2014_100"]["boundary_segm"]["boundary_iou_api"]
    found = score_coco(*fake(real, "boundary"), iou="boundary")
    assert list(found.metrics.values()) == pytest.approx(expected, **SAME)


@pytest.mark.parametrize("engine", ENGINES)
def test_open_vocabulary_coco(goldens: dict, real: tuple[Path, Path], engine: EngineName) -> None:
    split = json.loads(SPLIT.read_text())["classes"]
    groups = {part: [row["id"] for row in split if row["split"] == part] for part in ("base", "novel")}
    assert [len(groups[part]) for part in groups] == [48, 17]
    found = score_coco(*fake(real, "bbox"), groups=groups, engine=engine)
    expected = goldens["coco_val2014_100"]
    for ours, theirs in (("base", "base"), ("novel", "novel"), ("all", "all65")):
        for way in ("", "_per_class"):  # every class with ground truth has as many entries
            value = found.metrics[f"AP50_{ours}{way}"]
            assert value == pytest.approx(expected[f"ov_{theirs}_AP50_bbox"], abs=1e-14)
        if theirs != "all65":
            judged = [r for r in found.per_class if r.category.group == ours and r.values["AP"] is not None]
            assert len(judged) == expected[f"ov_{ours}_classes_with_gt"]


@pytest.mark.parametrize("engine", ["hotcoco", pytest.param("pycocotools", marks=pytest.mark.slow)])
@pytest.mark.parametrize("iou", ["bbox", "segm"])
@pytest.mark.parametrize(
    ("golden", "settings"),
    [
        ("", {}),
        ("_fixed", {"fixed": True}),
        ("_max10", {"per_image": 10}),
        ("_fixed_top5_per_class", {"fixed": True, "per_class": 5}),
    ],
)
def test_lvis(goldens: dict, data: Path, iou: str, golden: str, settings: dict, engine: EngineName) -> None:
    truth = data / "lvis-dataset__lvis-api/data/lvis_val_100.json"
    results = data / f"derived/lvis_val_100/dt_{iou}.json"
    found = score_lvis(truth, results, iou=iou, engine=engine, **settings)
    expected = goldens["lvis_val_100"][f"{iou}{golden}"]
    stats = {name.replace("@-1", ""): value for name, value in expected["stats"].items()}
    assert {name: found.metrics[name] for name in stats} == pytest.approx(stats, **SAME)
    assert list(found.metrics)[:13] == list(stats)
    if "per_class_AP" in expected:
        per_class = {
            str(r.category.id): r.values["AP"] for r in found.per_class if r.values["AP"] is not None
        }
        assert per_class == pytest.approx(expected["per_class_AP"], **SAME)


def test_areas_of_boxes(goldens: dict, data: Path) -> None:
    """The second COCO sample: objects' areas are those of their boxes."""
    folder = data / "rafaelpadilla__review_object_detection_metrics/tests/test_coco_eval"
    found = score_coco(folder / "gts/sampled_gts_bbox_area.json", folder / "dets/sampled_bbox_results.json")
    expected = goldens["review_object_detection_metrics"]
    assert list(found.metrics.values()) == pytest.approx(expected["pycocotools_stats"], **SAME)
    assert dict(found.metrics) == pytest.approx(expected["expected_coco"], abs=1e-6)


@pytest.mark.parametrize(("curve", "golden"), [("11 points", "expected_voc11"), ("area", "expected_voc_all")])
def test_pascal_voc(goldens: dict, data: Path, curve: VOCCurve, golden: str) -> None:
    folder = data / "rafaelpadilla__review_object_detection_metrics/tests/test_case_1"
    content: dict[str, list[dict[str, Any]]] = {"gts": [], "dets": []}
    files = sorted(path.name for path in (folder / "gts").iterdir())
    for kind, rows in content.items():
        for image, name in enumerate(files, 1):
            for line in (folder / kind / name).read_text().splitlines():
                _, *values = line.split()
                *score, x, y, width, height = map(float, values)
                row = {"id": len(rows) + 1, "image_id": image, "category_id": 1, "area": width * height}
                rows.append(row | {"bbox": [x, y, width, height], "score": (score or [1.0])[0]})
    truth = {
        "images": [{"id": n, "height": 300, "width": 300} for n in range(1, len(files) + 1)],
        "annotations": content["gts"],
        "categories": [{"id": 1, "name": "object"}],
    }
    for iou, expected in goldens["review_object_detection_metrics"][golden].items():
        found = list(voc_ap(truth, content["dets"], iou=float(iou), curve=curve).values())
        assert found == [pytest.approx(expected, abs=1e-9)], iou


@pytest.mark.parametrize("change", ["identity", "shift8", "drop_every_4th", "relabel_every_3rd", "coarse16"])
def test_panoptic(goldens: dict, data: Path, tmp_path: Path, change: str) -> None:
    expected = goldens["panopticapi_sample"][change]
    sample = data / "cocodataset__panopticapi"
    original = sample / "sample_data/panoptic_examples.json"
    content = json.loads(original.read_text())
    content["categories"] = json.loads((sample / "panoptic_coco_categories.json").read_text())
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(content))
    results = original if change == "identity" else data / f"derived/panoptic_{change}.json"
    found = score_panoptic_files(truth, results, truth_folder=original.with_suffix(""))
    for part, ours in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for name in ("pq", "sq", "rq"):
            assert found.metrics[name.upper() + ours] == pytest.approx(expected[part][name], **SAME)
        wanted = {"All": (True, False), "Things": (True,), "Stuff": (False,)}[part]
        counted = [c.id for c in found.quality.categories if c.is_thing in wanted]
        assert len([i for i in counted if i in found.quality.tallies]) == expected[part]["n"]
    for row in found.per_class:
        name, values = row.category.name, row.values
        if name in expected["per_class"]:
            theirs = {key.upper(): value for key, value in expected["per_class"][name].items()}
            tp, fp, fn, iou = expected["counts"][name]
            assert values == pytest.approx(theirs | {"TP": tp, "FP": fp, "FN": fn}, **SAME)
            assert found.quality.tallies[row.category.id].iou == pytest.approx(iou, **SAME)
        else:
            assert values["PQ"] is None


def _label_maps(data: Path, names: Sequence[str]) -> list[np.ndarray]:
    folder = data / "CSAILVision__sceneparsing/sampleData/annotations"
    return [cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED).astype(np.int64) - 1 for name in names]


@pytest.mark.parametrize("change", ["identity", "roll7", "blank_top_half", "as_other_image"])
def test_semantic(goldens: dict, data: Path, change: str) -> None:
    expected = goldens["sceneparsing_sample"][change]
    maps = _label_maps(data, goldens["sceneparsing_sample"]["files"])
    confusion = ConfusionMatrix(150)
    for i, truth in enumerate(maps):
        found = truth
        if change == "roll7":
            found = np.roll(truth, 7, axis=1)
        elif change == "blank_top_half":
            found = truth.copy()
            found[: len(found) // 2] = 0
        elif change == "as_other_image":
            other = maps[(i + 1) % len(maps)]
            rows, columns = (
                np.linspace(0, there - 1, here).astype(int)
                for here, there in zip(truth.shape, other.shape, strict=True)
            )
            found = other[rows][:, columns]
        # The script gives every pixel a class: where there would be none, the first.
        confusion.add(truth, np.maximum(found, 0))
    classes = [Category(id=i, name=str(i)) for i in range(150)]
    metrics = score_semantic(confusion, classes).metrics
    assert metrics["fwIoU"] == pytest.approx(expected["fwIoU"], **SAME)
    assert metrics["mACC"] == pytest.approx(expected["mAcc"], **SAME)
    assert metrics["pACC"] == pytest.approx(expected["aAcc"], **SAME)
    for rule, name in (
        ("detectron2", "mIoU_gt_classes"),
        ("mmseg", "mIoU_union_classes"),
        ("sceneparsing", "sceneparsing_meanIoU_150"),
    ):
        assert miou(confusion, rule=rule) == pytest.approx(expected[name], **SAME)
    whole = (miou(confusion, rule="sceneparsing") + metrics["pACC"]) / 2
    assert whole == pytest.approx(expected["final_score"], **SAME)


def _colours(path: Path, colours: dict[str, int]) -> np.ndarray:
    rgb = cv2.imread(str(path))[..., ::-1]
    classes = np.full(rgb.shape[:2], -1)
    for colour, label in colours.items():
        classes[(rgb == np.array(json.loads(f"[{colour[1:-1]}]"))).all(axis=-1)] = label
    assert classes.min() >= 0
    return classes


def _grey(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.int64)


def _numbered(classes: np.ndarray, instances: np.ndarray) -> tuple[np.ndarray, list[PanopticSegment]]:
    """Segments are the pairs of class and instance; class 0 is void."""
    pairs = np.where(classes > 0, classes * 256 + instances, 0)
    return pairs, [PanopticSegment(int(p), int(p) // 256) for p in np.unique(pairs) if p]


def _team(goldens: dict, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Classes and instances of the truth, and of the answer."""
    stored = goldens["deeplab2_pq"]
    true = _grey(folder / "team_gt_instance.png")
    classes = np.zeros_like(true)
    for value, label in stored["gt_class_maps"]["team"].items():
        classes[true == int(value)] = label
    found = _colours(folder / "team_pred_class.png", stored["colour_map"])
    return classes, true, found, _grey(folder / "team_pred_instance.png")


def test_deeplab2_instances(goldens: dict, data: Path) -> None:
    """AP of the instances of a panoptic answer, all of one score: ties go by the first pixel in the map."""
    folder = data / "google-research__deeplab2/evaluation/testdata"
    classes, true, found, given = _team(goldens, folder)
    rows: list[list[dict[str, Any]]] = [[], []]
    for side, (kinds, instances) in zip(rows, ((classes, true), (found, given)), strict=True):
        ids, segments = _numbered(kinds, instances)
        for n, segment in enumerate(sorted(segments, key=lambda s: int(np.argmax(ids == s.id))), 1):
            mask = RLE.encode((ids == segment.id).astype(np.uint8))
            row = {"id": n, "image_id": 1, "category_id": segment.category_id, "score": 1.0, "iscrowd": 0}
            side.append(row | {"area": mask.area, "segmentation": mask.to_coco()})
    truth = {
        "images": [{"id": 1, "height": true.shape[0], "width": true.shape[1]}],
        "annotations": rows[0],
        "categories": [{"id": i, "name": str(i)} for i in (1, 2)],
    }
    stats = [-1 if v is None else v for v in score_coco(truth, rows[1], iou="segm").metrics.values()]
    assert stats == pytest.approx(goldens["deeplab2_pq"]["expected_team_instance_AP"], abs=6e-5)


@pytest.mark.parametrize(("names", "golden"), [(["team"], "single"), (["team", "bird", "cat"], "three")])
def test_deeplab2(goldens: dict, data: Path, names: list[str], golden: str) -> None:
    """The pictures of deeplab2's unit tests; its means are over the classes seen."""
    stored = goldens["deeplab2_pq"]
    folder = data / "google-research__deeplab2/evaluation/testdata"
    quality = PanopticQuality([Category(id=i, name=str(i)) for i in range(1, 7)])
    for name in names:
        true = _grey(folder / (f"{name}_gt_instance.png" if name == "team" else f"{name}_gt.png"))
        classes = np.zeros_like(true)
        for value, label in stored["gt_class_maps"][name].items():
            classes[true == int(value)] = label
        found = _colours(folder / f"{name}_pred_class.png", stored["colour_map"])
        quality.add(*_numbered(classes, true), *_numbered(found, _grey(folder / f"{name}_pred_instance.png")))
    expected = stored[f"ours_{golden}"]
    mean = quality.of()
    assert mean is not None
    assert [mean.pq, mean.sq, mean.rq] == pytest.approx([expected[k] for k in ("PQ", "SQ", "RQ")], **SAME)
    for label, counts in expected["per_class"].items():
        tally = quality.tallies[int(label)]
        assert (tally.tp, tally.fp, tally.fn) == (counts["tp"], counts["fp"], counts["fn"])
    published = stored["expected_three" if golden == "three" else "expected_single_team"]
    assert mean.pq == pytest.approx(published["PQ"], abs=1e-7)
