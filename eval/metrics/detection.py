"""AP of boxes and masks from annotations and results: COCO, OV-COCO, LVIS and OV-LVIS.

Masks are judged without the boxes in a record, as detectron2 does: with them, areas by size would be those of
the boxes, and APs, APm and APl other numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics.ap_engine import APTask, EngineName, IoUKind, ap_engine
from eval.metrics.ground_truth import GroundTruth, read_ground_truth
from eval.metrics.json_files import uncollected
from eval.metrics.precision_recall import Area, PrecisionRecall
from eval.metrics.results import Cap, Results, read_results, with_area
from eval.metrics.scores import Category, ClassScore, DetectionScores
from ovperception.errors import InvalidParameter

__all__ = ["COCO_LIMITS", "FIXED_PER_CLASS", "LVIS_PER_IMAGE", "score_coco", "score_lvis"]

Annotations = str | Path | Mapping[str, Any]
ResultRows = str | Path | Sequence[Mapping[str, Any]]

COCO_LIMITS = (1, 10, 100)
"""Detections an image and class."""
LVIS_PER_IMAGE = 300
"""Detections an image, over all classes."""
FIXED_PER_CLASS = 10_000
"""Detections a class over the whole set, for fixed AP (Dave et al. 2021)."""

_BY_AREA: tuple[tuple[str, Area], ...] = (("s", "small"), ("m", "medium"), ("l", "large"))


def score_coco(
    truth: Annotations,
    results: ResultRows,
    *,
    iou: IoUKind = "bbox",
    groups: Mapping[str, Collection[int]] | None = None,
    image_ids: Collection[int] | None = None,
    class_agnostic: bool = False,
    engine: EngineName = "hotcoco",
) -> DetectionScores:
    """The 12 numbers of COCO, and those of groups of classes.

    With groups, only their classes are judged (OV-COCO drops the 15 that are neither base nor novel), and
    each group has its ``AP50_<group>`` (RegionCLIP: mean of the precision entries), its
    ``AP50_<group>_per_class`` (Detic: mean of the classes' AP50; the same up to the last digit) and its
    ``AP_<group>``; "all" are those of every group.

    Args:
        truth: path or content of a COCO instances file.
        results: path or content of a COCO result file.
        iou: of boxes, of masks, or of masks and their boundaries.
        groups: name -> ids of its classes.
        image_ids: the images to judge; None for all.
        class_agnostic: any object may be matched, whatever its class.
        engine: see `ap_engine`.

    Raises:
        MissingFile: there is no such file.
        InvalidDataset: a file is not what it should be; never a wrong number in silence.
        InvalidParameter: a setting is impossible.
        MissingDependency: the engine is not installed.
    """
    _check_iou(iou)
    chosen = sorted({i for ids in groups.values() for i in ids}) if groups else None
    judge = ap_engine(engine, iou)
    with uncollected():
        expected = read_ground_truth(truth, masks=iou != "bbox", image_ids=image_ids, category_ids=chosen)
        if groups:
            expected = _grouped(expected, groups)
        found = read_results(results, expected, masks=iou != "bbox")
        task = APTask(
            truth=expected,
            results=found,
            iou=iou,
            max_detections=COCO_LIMITS,
            class_agnostic=class_agnostic,
        )
        curves = judge.accumulate(task)
    rules = {"AP": "COCO", "max_detections": "100 per image and class", "recall_points": "101"}
    metrics = _coco_metrics(curves) | _group_metrics(curves, groups or {})
    if groups:
        rules["generalized"] = f"one run with all {len(expected.categories)} classes"
    if class_agnostic:
        rules["classes"] = "not told apart"
    return _scores("coco", iou, metrics, curves, expected, found, rules | {"engine": judge.label})


def score_lvis(
    truth: Annotations,
    results: ResultRows,
    *,
    iou: IoUKind = "segm",
    fixed: bool = False,
    image_ids: Collection[int] | None = None,
    per_image: int = LVIS_PER_IMAGE,
    per_class: int = FIXED_PER_CLASS,
    engine: EngineName = "hotcoco",
) -> DetectionScores:
    """The 13 numbers of LVIS v1 or v0.5, and OV-LVIS's ``AP_base`` (common and frequent); APr is its novel.

    Args:
        truth: path or content of an LVIS file.
        results: path or content of a result file.
        iou: of boxes, of masks, or of masks and their boundaries. Papers' headline is of masks.
        fixed: fixed AP (Dave et al. 2021): the best 10,000 detections of each class over the whole set, and
            no limit an image; otherwise lvis-api's 300 an image over all classes.
        image_ids: the images to judge, such as minival's; None for all.
        per_image: another limit than 300; not for publication.
        per_class: another limit than 10,000; not for publication.
        engine: see `ap_engine`.

    Raises:
        MissingFile: there is no such file.
        InvalidDataset: a file is not what it should be; never a wrong number in silence.
        InvalidParameter: a setting is impossible.
        MissingDependency: the engine is not installed.
    """
    _check_iou(iou)
    for name, limit in (("per_image", per_image), ("per_class", per_class)):
        if limit < 1:
            raise InvalidParameter("A limit is too small", field=name, expected="at least 1", got=limit)
    cap = Cap(per_class=per_class) if fixed else Cap(per_image=per_image)
    judge = ap_engine(engine, iou)
    with uncollected():
        expected = read_ground_truth(truth, masks=iou != "bbox", federated=True, image_ids=image_ids)
        found = with_area(read_results(results, expected, masks=iou != "bbox", cap=cap))
        # The cap leaves no image more than this of one class: the engine has nothing to cut.
        limit = max(1, len(found.scores)) if fixed else per_image
        curves = judge.accumulate(
            APTask(truth=expected, results=found, iou=iou, max_detections=(limit,), federated=True)
        )
    rules = {
        "AP": "LVIS fixed" if fixed else "LVIS standard",
        "max_detections": f"{per_class} per class" if fixed else f"{per_image} per image",
        "recall_points": "101",
        "engine": judge.label,
    }
    metrics = _lvis_metrics(curves, expected.categories, "" if fixed else f"@{LVIS_PER_IMAGE}")
    kind = "lvis-fixed" if fixed else "lvis"
    return _scores(kind, iou, metrics, curves, expected, found, rules)


def _grouped(truth: GroundTruth, groups: Mapping[str, Collection[int]]) -> GroundTruth:
    named = {i: name for name, ids in groups.items() for i in ids}
    return replace(truth, categories=tuple(replace(c, group=named[c.id]) for c in truth.categories))


def _check_iou(iou: str) -> None:
    if iou not in ("bbox", "segm", "boundary"):
        raise InvalidParameter(
            "This kind of overlap is not known", field="iou", expected="bbox, segm or boundary", got=iou
        )


def _precision_metrics(curves: PrecisionRecall) -> dict[str, float | None]:
    metrics = {"AP": curves.ap(), "AP50": curves.ap(iou=0.5), "AP75": curves.ap(iou=0.75)}
    return metrics | {f"AP{letter}": curves.ap(area=area) for letter, area in _BY_AREA}


def _coco_metrics(curves: PrecisionRecall) -> dict[str, float | None]:
    metrics = _precision_metrics(curves)
    metrics |= {f"AR{limit}": curves.ar(max_detections=limit) for limit in COCO_LIMITS}
    return metrics | {f"AR{letter}": curves.ar(area=area) for letter, area in _BY_AREA}


def _group_metrics(curves: PrecisionRecall, groups: Mapping[str, Collection[int]]) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {}
    every = [i for ids in groups.values() for i in ids]
    by_class = curves.per_class(0.5)
    for name, ids in (*groups.items(), *((("all", every),) if groups else ())):
        per_class = [ap for i in sorted(ids) if (ap := by_class[i]) is not None]
        metrics[f"AP50_{name}"] = curves.ap(ids, iou=0.5)
        metrics[f"AP50_{name}_per_class"] = float(np.mean(per_class)) if per_class else None
        metrics[f"AP_{name}"] = curves.ap(ids)
    return metrics


def _lvis_metrics(
    curves: PrecisionRecall, categories: Sequence[Category], limit: str
) -> dict[str, float | None]:
    def of(letters: str) -> list[int]:
        return [category.id for category in categories if category.group in letters]

    metrics = _precision_metrics(curves)
    metrics |= {f"AP{letter}": curves.ap(of(letter)) for letter in "rcf"}
    metrics[f"AR{limit}"] = curves.ar()
    metrics |= {f"AR{letter}{limit}": curves.ar(area=area) for letter, area in _BY_AREA}
    return metrics | {"AP_base": curves.ap(of("cf"))}


def _scores(
    kind: str,
    iou: IoUKind,
    metrics: Mapping[str, float | None],
    curves: PrecisionRecall,
    truth: GroundTruth,
    found: Results,
    rules: Mapping[str, str],
) -> DetectionScores:
    images = len(truth.images)
    overlap = {"bbox": "boxes", "segm": "masks", "boundary": "masks and their boundaries (2 % of diagonal)"}
    columns = {"AP": curves.per_class(), "AP50": curves.per_class(0.5), "AP75": curves.per_class(0.75)}
    columns |= {f"AP{letter}": curves.per_class(area=area) for letter, area in _BY_AREA}
    told_apart = curves.category_ids != (-1,)
    objects = _counts(truth.category_ids[~truth.crowd])
    detections = _counts(found.category_ids)
    per_class = tuple(
        ClassScore(
            category=category,
            values={name: column[category.id] for name, column in columns.items()}
            | {"objects": objects.get(category.id, 0), "detections": detections.get(category.id, 0)},
        )
        for category in (truth.categories if told_apart else ())
    )
    return DetectionScores(
        kind=kind,
        metrics=metrics,
        per_class=per_class,
        rules={"iou": overlap[iou], **rules},
        images=images,
        curves=curves,
        warnings=+(truth.warnings + found.warnings),
    )


def _counts(ids: NDArray[np.int64]) -> dict[int, int]:
    found, counts = np.unique(ids, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
