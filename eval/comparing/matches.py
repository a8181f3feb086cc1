"""Which detections of a result file are right, at every overlap, so that images can be drawn again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics.ap_engine import APTask
from eval.metrics.detection import COCO_LIMITS, FIXED_PER_CLASS, LVIS_PER_IMAGE
from eval.metrics.ground_truth import read_ground_truth
from eval.metrics.results import Cap, read_results
from eval.outcome import Outcome
from eval.protocols.protocol import AP

__all__ = ["ClassMatches", "read_matches"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassMatches:
    """One class: n detections, the best score first, over I images; T = 10 overlaps.

    Attributes:
        images: (n,) index of the image of each detection.
        right: (T, n) it matches an object.
        ignored: (T, n) it counts neither as right nor as wrong.
        objects: (I,) objects to be found in each image.
    """

    images: NDArray[np.int64]
    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.int64]


def read_matches(outcome: Outcome, metric: AP, truth: Path, predictions: Path) -> dict[int, ClassMatches]:
    """The matches of each class by its id.

    Args:
        outcome: whose images and classes are judged.
        metric: of its protocol.
        truth: annotation file.
        predictions: result file.

    Raises:
        MissingFile, InvalidDataset: a file is gone, or is not what it was.
    """
    from eval.metrics import hotcoco_engine, pycocotools_engine

    masks = metric.iou != "bbox"
    federated = metric.kind == "lvis"
    ids = [image.image_id for image in outcome.images]
    expected = read_ground_truth(
        truth,
        masks=masks,
        federated=federated,
        image_ids=[i for i in ids if isinstance(i, int)],
        category_ids=[row.id for row in outcome.per_class],
    )
    cap = Cap()
    if federated:
        cap = Cap(per_class=FIXED_PER_CLASS) if metric.fixed else Cap(per_image=LVIS_PER_IMAGE)
    found = read_results(predictions, expected, masks=masks, cap=cap)
    limit = COCO_LIMITS[-1]
    if federated:
        limit = max(1, len(found.scores)) if metric.fixed else LVIS_PER_IMAGE
    if not len(expected.image_ids):
        return {}
    task = APTask(truth=expected, results=found, iou=metric.iou, max_detections=(limit,), federated=federated)
    place = {image_id: i for i, image_id in enumerate(ids)}
    rows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    if metric.iou == "boundary":  # as in `eval.metrics.ap_engine`, hotcoco has none of COCO's rules for it
        judged = pycocotools_engine.matched(task)
    else:
        judged = hotcoco_engine.matched(task, all_areas=False).eval_imgs
    for row in judged:
        if row is not None:
            rows[row["category_id"]].append(row)
    return {category: _class(found_there, place, len(ids)) for category, found_there in rows.items()}


def _class(rows: Sequence[dict[str, Any]], place: dict[Any, int], images: int) -> ClassMatches:
    rows = sorted(rows, key=lambda row: place[row["image_id"]])
    objects = np.zeros(images, np.int64)
    for row in rows:
        objects[place[row["image_id"]]] += len(row["gtIds"]) - int(np.sum(row["gtIgnore"]))
    with_detections = [row for row in rows if row["dtScores"]]
    if not with_detections:
        nothing = np.zeros((10, 0), bool)
        return ClassMatches(images=np.zeros(0, np.int64), right=nothing, ignored=nothing, objects=objects)
    scores = np.concatenate([row["dtScores"] for row in with_detections])
    order = np.argsort(-scores, kind="stable")  # ties in the order of the images, as the engines have them
    owners = np.repeat(
        [place[row["image_id"]] for row in with_detections], [len(row["dtScores"]) for row in with_detections]
    )
    ignored = np.concatenate([np.asarray(row["dtIgnore"], bool) for row in with_detections], axis=1)
    right = np.concatenate([np.asarray(row["dtMatched"], bool) for row in with_detections], axis=1)
    return ClassMatches(
        images=owners[order], right=(right & ~ignored)[:, order], ignored=ignored[:, order], objects=objects
    )
