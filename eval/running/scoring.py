"""From the records of a run to numbers: the official files are written, and scored as any other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics import (
    BoundaryIoU,
    CityscapesScores,
    ConfusionMatrix,
    DetectionScores,
    FewShotIoU,
    PanopticQuality,
    Scores,
    VOCScores,
    ap_engine,
    score_cityscapes,
    score_coco,
    score_lvis,
    score_semantic,
    score_voc,
    with_boundary,
)
from eval.outcome import EDGE_COLUMNS, PIXEL_COLUMNS, ConfusedPair, Curve, ImageCounts
from eval.protocols import AP, PQ, FewShot, MeanIoU
from eval.running.done import Done
from eval.running.journal import Record
from eval.running.machine import installed
from eval.running.prediction_files import FOLDER, write_json_list, write_json_object
from eval.running.share import Opened
from eval.running.tables import confused_labels, confused_pairs, curves, group_metrics
from eval.running.truth_file import TRUTH, annotation_file, drawn_truth
from ovperception.datasets.scenes import scene_seed

__all__ = ["Scored", "engine_of", "score_objects", "scored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Numbers of a run and what goes with them.

    Attributes:
        scores: of the metric.
        metrics: of the scores and the protocol's groups.
        engine: what computed them.
        truth: path of the annotations; "" where they were drawn.
        predictions: path of the official file or folder.
        curves: of detection.
        confusion: pairs.
        counts: of each image, for maps.
    """

    scores: Scores
    metrics: dict[str, float | None]
    engine: str
    truth: str
    predictions: str
    curves: tuple[Curve, ...] = ()
    confusion: tuple[ConfusedPair, ...] = field(default=())
    counts: ImageCounts | None = None


def scored(opened: Opened, done: Done) -> Scored:
    """Writes the official files of a run and scores them.

    Raises:
        ResourceExhausted: the disk is full.
        InvalidDataset: the annotation file is not what it should be.
    """
    metric = opened.job.protocol.metric
    if isinstance(metric, AP):
        return _objects(opened, done, metric)
    if isinstance(metric, PQ):
        return _segments(opened, done)
    return _episodes(opened, done) if isinstance(metric, FewShot) else _labels(opened, done, metric)


def _objects(opened: Opened, done: Done, metric: AP) -> Scored:
    job, question = opened.job, opened.question
    annotations = annotation_file(opened.dataset)
    ids: dict[int, int] | None = None
    if annotations is None:
        annotations = job.out / TRUTH
        split = job.split or job.protocol.split
        seed = scene_seed(split, job.first) if job.data == "scenes" else 0  # type: ignore[arg-type]
        content, ids = drawn_truth(
            done, question.categories, opened.dataset, seed=seed, void=metric.kind == "cityscapes"
        )
        write_json_object(annotations, content)
    numbers = [ids[r["i"]] if ids else r["id"] for r in done]
    path = job.out / FOLDER / "results.json"
    write_json_list(path, (row for r in done for row in _rows(r, ids, masks=metric.iou != "bbox")))
    groups = {str(name): ids for name, ids in question.groups.items()}
    scores = score_objects(metric, str(annotations), str(path), groups, numbers)
    names = {category.id: category.name for category in question.categories}
    return Scored(
        scores=scores,
        metrics=dict(scores.metrics),
        engine=engine_of(metric),
        truth=str(annotations.absolute()) if ids is None else TRUTH,
        predictions=f"{FOLDER}/results.json",
        curves=curves(scores.curves, names, groups) if isinstance(scores, DetectionScores) else (),
        confusion=confused_pairs(_summed(done), question.categories),
    )


def _rows(record: Record, ids: dict[int, int] | None, *, masks: bool) -> Iterator[dict[str, Any]]:
    number = ids[record["i"]] if ids else record["id"]
    columns = zip(record["categories"], record["boxes"], record["scores"], strict=True)
    for n, (category, box, score) in enumerate(columns):
        row = {"image_id": number, "category_id": category, "bbox": box, "score": score}
        if masks:
            row["segmentation"] = {"size": record["size"], "counts": record["masks"][n]}
        yield row


def score_objects(
    metric: AP,
    truth: str | Mapping[str, Any],
    results: str | Sequence[Mapping[str, Any]],
    groups: Mapping[str, Sequence[int]],
    image_ids: Sequence[int] | None,
) -> DetectionScores | VOCScores | CityscapesScores:
    """AP by the rules of a protocol, with the numbers of its groups."""
    if metric.kind == "voc":
        return score_voc(truth, results, curve=metric.curve, groups=groups or None, image_ids=image_ids)
    if metric.kind == "cityscapes":
        return score_cityscapes(truth, results, groups=groups or None, image_ids=image_ids)
    if metric.kind == "lvis":
        found = score_lvis(truth, results, iou=metric.iou, fixed=metric.fixed, image_ids=image_ids)
        own = {name: ids for name, ids in groups.items() if name in ("base", "novel")}
        return replace(found, metrics={**found.metrics, **group_metrics(found, own)})
    return score_coco(truth, results, iou=metric.iou, groups=groups or None, image_ids=image_ids)


def engine_of(metric: AP) -> str:
    """What computes it, with its version."""
    return _own() if metric.kind in ("voc", "cityscapes") else ap_engine("hotcoco", metric.iou).label


def _summed(done: Iterable[Record]) -> Counter[tuple[int, int]]:
    pairs: Counter[tuple[int, int]] = Counter()
    for record in done:
        for true, given, count in record["pairs"]:
            pairs[true, given] += count
    return pairs


def _labels(opened: Opened, done: Done, metric: MeanIoU) -> Scored:
    job, categories = opened.job, opened.question.categories
    count = len(categories)
    confusion = ConfusionMatrix(count)
    edges = BoundaryIoU(count, metric.boundary) if metric.boundary else None
    parts: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    for number, record in enumerate(done):
        cells, pixels = np.array(record["cells"], np.int64), np.array(record["pixels"], np.int64)
        confusion.counts.ravel()[cells] += pixels
        confusion.images += 1
        extra = np.zeros((count, 0))
        if edges is not None:
            edges.add_cells(record["boundary"])
            of_image = BoundaryIoU(count, edges.rule)
            of_image.add_cells(record["boundary"])
            extra = of_image.sums().astype(np.float64)
        parts.append(_image_counts(number, cells, pixels, extra))
    scores = score_semantic(
        confusion,
        categories,
        rule=metric.averaging,
        ignore_rule=f"{job.protocol.ignore} not judged",
        background_rule=str(job.protocol.background),
    )
    if edges is not None:
        scores = with_boundary(scores, edges)
    return Scored(
        scores=scores,
        metrics=dict(scores.metrics),
        engine=_own(),
        truth=str(opened.dataset.annotations or ""),
        predictions=f"{FOLDER}/labels",
        confusion=confused_labels(scores, categories),
        counts=_counts(PIXEL_COLUMNS + (EDGE_COLUMNS if edges else ()), parts),
    )


def _image_counts(number: int, cells: Any, pixels: Any, extra: NDArray[np.float64]) -> Any:
    """(n, 5 + M): image, class, intersection, true and predicted pixels, and M further columns, (K, M)."""
    count = len(extra)
    true, given = np.divmod(cells, count + 1)
    columns = [
        np.bincount(true[true == given], weights=pixels[true == given], minlength=count + 1),
        np.bincount(true, weights=pixels, minlength=count + 1),
        np.bincount(given, weights=pixels, minlength=count + 1),
    ]
    table = np.concatenate([np.stack(columns, axis=1)[:count], extra], axis=1)
    present = np.flatnonzero(table.any(axis=1))
    return np.column_stack([np.full(len(present), number), present, table[present]])


def _counts(columns: tuple[str, ...], parts: Sequence[Any]) -> ImageCounts:
    table = np.concatenate(parts) if parts else np.zeros((0, 2 + len(columns)))
    return ImageCounts(
        columns=columns,
        images=table[:, 0].astype(np.int64),
        classes=table[:, 1].astype(np.int64),
        values=table[:, 2:],
    )


def _segments(opened: Opened, done: Done) -> Scored:
    job, categories = opened.job, opened.question.categories
    total = PanopticQuality(categories)
    arrays = total.to_arrays()
    parts, rows = [], []
    for number, record in enumerate(done):
        tallies = np.array(record["tallies"], np.float64).reshape(-1, 5)
        at = tallies[:, 0].astype(np.int64)
        arrays["matches"][at] += tallies[:, 1:4].astype(np.int64)
        arrays["iou"][at] += tallies[:, 4]
        arrays["images"] = arrays["images"] + 1
        parts.append(np.column_stack([np.full(len(tallies), number), tallies]))
        name = record["file"].removeprefix("panoptic/")
        rows.append({"image_id": record["id"], "file_name": name, "segments_info": record["segments"]})
    path = job.out / FOLDER / "panoptic.json"
    write_json_object(path, {"annotations": rows, "categories": _panoptic_categories(opened)})
    scores = PanopticQuality.from_arrays(categories, arrays).scores()
    return Scored(
        scores=scores,
        metrics=dict(scores.metrics),
        engine=_own(),
        truth=str(opened.dataset.annotations or ""),
        predictions=f"{FOLDER}/panoptic.json",
        confusion=confused_pairs(_summed(done), categories),
        counts=_counts(("tp", "fp", "fn", "iou"), parts),
    )


def _panoptic_categories(opened: Opened) -> list[dict[str, Any]]:
    return [
        {"id": category.id, "name": category.name, "isthing": int(category.is_thing)}
        for category in opened.question.categories
    ]


def _episodes(opened: Opened, done: Done) -> Scored:
    total = FewShotIoU(opened.question.categories)
    for record in done:
        total.counts[record["class"]] += np.array(record["counts"], np.int64)
        total.images += 1
    scores = total.scores()
    return Scored(
        scores=scores,
        metrics=dict(scores.metrics),
        engine=_own(),
        truth=str(opened.dataset.annotations or ""),
        predictions=f"{FOLDER}/masks",
    )


def _own() -> str:
    return f"ovperception {installed('ovperception')}"
