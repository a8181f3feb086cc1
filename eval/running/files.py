"""Scoring of predictions that somebody else made: result files beside annotation files."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics import (
    Category,
    DetectionScores,
    PanopticQuality,
    Scores,
    SemanticScores,
    cityscapes_results,
    cityscapes_truth,
    read_panoptic_files,
    score_label_files,
)
from eval.metrics.json_files import read_json
from eval.outcome import ConfusedPair, Curve, ImageCounts, ImageScore, Outcome, RunFacts
from eval.outcome_files import prepare_folder, write_outcome
from eval.protocols import AP, PQ, EvaluationProtocol, MeanIoU, groups_of, report_line
from eval.running.agreement import box_agreement
from eval.running.annotation_checks import FOREIGN, check_federated, foreign_categories
from eval.running.ending import headline_of
from eval.running.label_codings import label_files
from eval.running.machine import installed, machine, tree, versions
from eval.running.question import judged_rows
from eval.running.scoring import engine_of, score_objects
from eval.running.tables import (
    breakdowns,
    class_rows,
    confused_labels,
    confused_pairs,
    counted_warnings,
    curves,
)
from ovperception.datasets.categories import Classes, builtin_classes
from ovperception.datasets.scene_sets import scenes_classes
from ovperception.errors import InvalidParameter, Unsupported
from ovperception.vocabulary import builtin_names

__all__ = ["score_files"]

Groups = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    scores: Scores
    metrics: Mapping[str, float | None]
    engine: str
    curves: tuple[Curve, ...] = ()
    confusion: tuple[ConfusedPair, ...] = ()
    images: tuple[ImageScore, ...] = ()
    counts: ImageCounts | None = None


def score_files(
    protocol: EvaluationProtocol,
    annotations: Path,
    results: Path,
    out: Path,
    *,
    annotation_maps: Path | None = None,
    result_maps: Path | None = None,
) -> Outcome:
    """Scores files and writes an `Outcome`.

    Args:
        protocol: whose rules, groups and codings apply.
        annotations: COCO or LVIS JSON, COCO panoptic JSON, the folder of label maps, or of Cityscapes' own
            pictures of instances.
        results: the same of the answers.
        out: folder of the outcome.
        annotation_maps: of panoptic files, the folder of PNGs if it is not named as the JSON is.
        result_maps: the same of the answers.

    Raises:
        MissingFile, InvalidDataset: a file is missing, or not what it should be.
        Unsupported: results of this protocol are no files.
    """
    prepare_folder(out)
    started = datetime.datetime.now(datetime.UTC)
    classes, groups = _classes(protocol)
    foreign = 0
    if isinstance(protocol.metric, AP):
        truth, answers = _read_objects(protocol.data, annotations, results)
        found = _objects(protocol, protocol.metric, truth, answers, groups)
        foreign = foreign_categories(truth["categories"], classes) if classes else 0
    elif isinstance(protocol.metric, PQ):
        found = _segments(annotations, results, annotation_maps, result_maps, groups)
    elif isinstance(protocol.metric, MeanIoU):
        found = _labels(protocol, protocol.metric, annotations, results, classes, groups)
    else:
        raise Unsupported(
            "Episodes are not scored from files", field="protocol", got=protocol.name, mend="Name a model"
        )
    words = classes.vocabulary.content_hash if classes and not foreign else ""
    outcome = Outcome(
        protocol=protocol.name,
        title=protocol.title,
        kind=found.scores.kind,
        headline=headline_of(protocol, found.metrics),
        report_line=report_line(
            protocol,
            images=found.scores.images,
            vocabulary_hash=words,
            engine=found.engine,
            templates="not known",
            resolution="not known",
            augmentation="not known",
        ),
        metrics=found.metrics,
        rules=dict(found.scores.rules),
        facts=_facts(protocol, annotations, results, words, started),
        per_class=class_rows(found.scores, groups),
        curves=found.curves,
        confusion=found.confusion,
        breakdowns=breakdowns(found.scores, groups),
        images=found.images,
        counts=found.counts,
        warnings=counted_warnings({**found.scores.warnings, FOREIGN: foreign}),
    )
    write_outcome(outcome, out)
    return outcome


def _classes(protocol: EvaluationProtocol) -> tuple[Classes | None, Groups]:
    if protocol.vocabulary == "scenes":
        classes = scenes_classes()
    elif protocol.vocabulary in builtin_names():
        classes = builtin_classes(protocol.vocabulary)
    else:
        return None, {}
    kept = set(judged_rows(protocol, classes.vocabulary, named=True))
    groups = {
        str(part): tuple(classes.category_ids[i] for i in rows if i in kept)
        for part, rows in groups_of(protocol).items()
    }
    return classes, groups


def _facts(
    protocol: EvaluationProtocol, annotations: Path, results: Path, words: str, started: datetime.datetime
) -> RunFacts:
    return RunFacts(
        command=shlex.join(["ovp", *sys.argv[1:]]),
        data=protocol.data,
        split=protocol.split,
        truth=str(annotations.absolute()),
        predictions=str(results.absolute()),
        vocabulary=protocol.vocabulary,
        vocabulary_hash=words,
        commit=tree(),
        versions=versions(),
        machine=machine(),
        started=started.isoformat(timespec="seconds"),
        seconds=(datetime.datetime.now(datetime.UTC) - started).total_seconds(),
    )


def _read_objects(data: str, annotations: Path, results: Path) -> tuple[Any, str | list[dict[str, Any]]]:
    """Content of the annotations, and path or content of the results."""
    if data != "cityscapes" or not annotations.is_dir():
        for field, path in (("annotations", annotations), ("results", results)):
            _refuse_folder(field, path)
        return read_json(annotations), str(results)
    truth = cityscapes_truth(annotations)
    return truth, cityscapes_results(results, truth) if results.is_dir() else str(results)


def _refuse_folder(field: str, path: Path) -> None:
    if path.is_dir():
        raise InvalidParameter(
            "This is a folder", field=field, expected="a JSON file of this protocol's objects", got=path
        )


def _objects(
    protocol: EvaluationProtocol,
    metric: AP,
    truth: Mapping[str, Any],
    results: str | list[dict[str, Any]],
    groups: Groups,
) -> _Scored:
    ids = _minival(truth) if protocol.split == "minival" else None
    scores = score_objects(metric, truth, results, groups, ids)
    if metric.kind == "lvis":
        check_federated(truth)
    categories = [row.category for row in scores.per_class]
    rows = read_json(results) if isinstance(results, str) else results
    images, pairs = _agreements(truth, rows, categories, ids)
    return _Scored(
        scores=scores,
        metrics=scores.metrics,
        engine=engine_of(metric),
        curves=curves(scores.curves, {c.id: c.name for c in categories}, groups)
        if isinstance(scores, DetectionScores)
        else (),
        confusion=confused_pairs(pairs, categories),
        images=images,
    )


def _minival(truth: Any) -> list[int] | None:
    """Of LVIS val, the images that lie in COCO's val2017; None for all, as of a file of minival alone."""
    images = truth.get("images") if isinstance(truth, Mapping) else None
    rows = [row for row in images if isinstance(row, Mapping)] if isinstance(images, list) else []
    return [row["id"] for row in rows if "id" in row and "val2017/" in str(row.get("coco_url"))] or None


def _agreements(
    truth: Mapping[str, Any],
    results: Any,
    categories: Sequence[Category],
    image_ids: Sequence[int] | None,
) -> tuple[tuple[ImageScore, ...], Counter[tuple[int, int]]]:
    """How each image went by its boxes; nothing where results have none. The files are checked by now."""
    rows = results["annotations"] if isinstance(results, Mapping) else results
    pairs: Counter[tuple[int, int]] = Counter()
    if not all("bbox" in row for row in rows):
        return (), pairs
    index = {category.id: i for i, category in enumerate(categories)}
    true: dict[int, list[tuple[int, list[float]]]] = {}
    for row in truth["annotations"]:
        if row["category_id"] in index and not row.get("iscrowd") and "bbox" in row:
            true.setdefault(row["image_id"], []).append((index[row["category_id"]], row["bbox"]))
    given: dict[int, list[tuple[float, int, list[float]]]] = {}
    for row in rows:
        if row["category_id"] in index:
            found = (-float(row["score"]), index[row["category_id"]], row["bbox"])
            given.setdefault(row["image_id"], []).append(found)
    scores = []
    chosen = None if image_ids is None else set(image_ids)
    for image in truth["images"]:
        if chosen is not None and image["id"] not in chosen:
            continue
        here = true.get(image["id"], [])
        best = sorted(given.get(image["id"], []), key=lambda row: row[0])[: len(here)]
        seen = box_agreement(
            _corners([box for _, box in here]),
            np.array([i for i, _ in here], np.int64),
            _corners([box for _, _, box in best]),
            np.array([i for _, i, _ in best], np.int64),
        )
        pairs += seen.pairs
        scores.append(
            ImageScore(
                image_id=image["id"],
                file_name=str(image.get("file_name", image["id"])),
                path="",
                score=seen.score,
                objects=seen.objects,
                found=seen.found,
            )
        )
    return tuple(scores), pairs


def _corners(boxes: Sequence[Sequence[float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def _segments(
    annotations: Path, results: Path, maps: Path | None, result_maps: Path | None, groups: Groups
) -> _Scored:
    files = read_panoptic_files(annotations, results, truth_folder=maps, results_folder=result_maps)
    words = {i: name for name, ids in groups.items() if name not in ("things", "stuff") for i in ids}
    categories = tuple(dataclasses.replace(c, group=words.get(c.id, "")) for c in files.categories)
    quality = PanopticQuality(categories)
    arrays = quality.to_arrays()
    images, parts = [], []
    for number, image_id in enumerate(files.image_ids):
        before = np.column_stack([arrays["matches"], arrays["iou"]])
        files.count(quality, [image_id])
        added = np.column_stack([arrays["matches"], arrays["iou"]]) - before
        rows = np.flatnonzero(added[:, :3].any(axis=1))
        parts.append(np.column_stack([np.full(len(rows), number), rows, added[rows]]))
        images.append(_image_quality(image_id, files.truth[image_id][1].name, added[rows]))
    table = np.concatenate(parts) if parts else np.zeros((0, 6))
    scores = dataclasses.replace(quality.scores(), warnings=files.warnings)
    return _Scored(
        scores=scores,
        metrics=scores.metrics,
        engine=f"ovperception {installed('ovperception')}",
        images=tuple(images),
        counts=ImageCounts(
            columns=("tp", "fp", "fn", "iou"),
            images=table[:, 0].astype(np.int64),
            classes=table[:, 1].astype(np.int64),
            values=table[:, 2:],
        ),
    )


def _image_quality(image_id: int, name: str, rows: np.ndarray[Any, np.dtype[np.float64]]) -> ImageScore:
    tp, fp, fn, iou = rows.T
    return ImageScore(
        image_id=image_id,
        file_name=name,
        path="",
        score=float((iou / (tp + fp / 2 + fn / 2)).mean()) if len(rows) else None,
        objects=int((tp + fn).sum()),
        found=int(tp.sum()),
    )


def _labels(
    protocol: EvaluationProtocol,
    metric: MeanIoU,
    annotations: Path,
    results: Path,
    classes: Classes | None,
    groups: Groups,
) -> _Scored:
    files = label_files(protocol.data)
    assert classes is not None
    words = {i: name for name, ids in groups.items() if name not in ("things", "stuff") for i in ids}
    categories = [
        Category(id=i, name=name, is_thing=thing, group=words.get(i, ""))
        for i, name, thing in zip(
            classes.category_ids, classes.vocabulary.names, classes.vocabulary.is_thing, strict=True
        )
    ]
    scores: SemanticScores = score_label_files(
        annotations,
        results,
        categories,
        rule=metric.averaging,
        truth_coding=files.truth,
        results_coding=files.results,
        truth_suffix=files.suffix,
        boundary=metric.boundary,
    )
    return _Scored(
        scores=scores,
        metrics=scores.metrics,
        engine=f"ovperception {installed('ovperception')}",
        confusion=confused_labels(scores, categories),
    )
