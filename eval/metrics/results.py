"""Result files of COCO and LVIS, checked against their annotations and turned into columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics.columns import box_column, integer_column, number_column, records
from eval.metrics.ground_truth import GroundTruth
from eval.metrics.json_files import read_json
from eval.metrics.run_lengths import check_masks
from ovperception.errors import InvalidDataset

__all__ = ["Cap", "Results", "read_results"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """How many detections are looked at: the highest-scoring ones, ties in the order of the file.

    Attributes:
        per_image: over all classes; None for no limit.
        per_class: over all images; None for no limit.
    """

    per_image: int | None = None
    per_class: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Results:
    """What was found: N detections in the order of the file.

    Attributes:
        image_ids: (N,).
        category_ids: (N,).
        scores: (N,), finite.
        boxes: (N, 4) x, y, width, height; None if masks are judged.
        masks: (N,) compressed COCO RLE; None if boxes are judged.
        areas: (N,) pixels of the mask or of the box.
        warnings: what was odd.
    """

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64] | None
    masks: list[Mapping[str, Any]] | None
    areas: NDArray[np.float64]
    warnings: Counter[str]


def read_results(
    source: str | Path | Sequence[Mapping[str, Any]],
    truth: GroundTruth,
    *,
    masks: bool,
    cap: Cap | None = None,
) -> Results:
    """Read a result file.

    Args:
        source: a path, gzipped or not, or its content: a list of objects with "image_id", "category_id",
            "score" and "bbox" or "segmentation"; or an annotation file whose objects have scores.
        truth: what it answers.
        masks: masks are judged, and boxes not looked at; otherwise boxes.
        cap: a protocol's limits, applied before classes that are not known are left out.

    Raises:
        MissingFile: there is no such file.
        InvalidDataset: it is no result file, an image is not among the annotated ones, a score is NaN, or a
            box or mask is misshaped.
    """
    content = read_json(source) if isinstance(source, str | Path) else source
    if isinstance(content, Mapping) and "annotations" in content:
        content = content["annotations"]
    rows = records(content, "results")
    warnings: Counter[str] = Counter()
    image_ids = integer_column(rows, "image_id", "results")
    _check_images(image_ids, truth)
    category_ids = integer_column(rows, "category_id", "results")
    scores = number_column(rows, "score", "results")
    warnings["score_out_of_range"] += int(((scores < 0) | (scores > 1)).sum())
    kept = _capped(image_ids, category_ids, scores, cap or Cap())
    warnings["capped_result"] += len(rows) - int(kept.sum())
    kept &= _asked_for(image_ids, category_ids, kept, truth, warnings)
    if not kept.all():
        rows = [rows[i] for i in np.flatnonzero(kept).tolist()]
        image_ids, category_ids, scores = image_ids[kept], category_ids[kept], scores[kept]
    warnings["no_results"] += not rows
    warnings["image_without_results"] += len(truth.images) - len(np.unique(image_ids)) if len(rows) else 0
    if masks:
        found = [row.get("segmentation") for row in rows]
        rles, pixels = check_masks(found, truth.sizes(image_ids), "results")
        warnings["empty_mask"] += int((pixels == 0).sum())
        boxes, areas = None, pixels.astype(np.float64)
    else:
        boxes = box_column(rows, "results")
        areas, rles = boxes[:, 2] * boxes[:, 3], None
        warnings["degenerate_box"] += int((areas == 0).sum())
    return Results(
        image_ids=image_ids,
        category_ids=category_ids,
        scores=scores,
        boxes=boxes,
        masks=rles,
        areas=areas,
        warnings=warnings,
    )


def _check_images(image_ids: NDArray[np.int64], truth: GroundTruth) -> None:
    found = np.unique(image_ids).tolist()
    strange = [i for i in found if i not in truth.known_images]
    if strange:
        raise InvalidDataset(
            "Results are of images that the annotation file does not list",
            field="results.image_id",
            expected=f"ids such as {sorted(truth.known_images)[:3]}",
            got=f"{len(strange)} of {len(found)} images, such as {strange[:5]}",
            mend="Check that both files are of one split.",
        )


def _asked_for(
    image_ids: NDArray[np.int64],
    category_ids: NDArray[np.int64],
    kept: NDArray[np.bool_],
    truth: GroundTruth,
    warnings: Counter[str],
) -> NDArray[np.bool_]:
    """Where image and class are judged; counts the others, of what the cap kept."""
    unknown = kept & ~np.isin(category_ids, list(truth.known_categories))
    if len(category_ids) and unknown.sum() == kept.sum():
        raise InvalidDataset(
            "No result is of a category that the annotation file lists",
            field="results.category_id",
            expected=f"ids such as {sorted(truth.known_categories)[:5]}",
            got=np.unique(category_ids)[:5].tolist(),
            mend="Results carry the ids of the annotation file, not the index of the class.",
        )
    inside = np.isin(image_ids, [image["id"] for image in truth.images])
    inside &= np.isin(category_ids, [category.id for category in truth.categories])
    warnings["result_of_unknown_category"] += int(unknown.sum())
    warnings["result_outside_selection"] += int((kept & ~inside & ~unknown).sum())
    return inside


def _capped(
    image_ids: NDArray[np.int64], category_ids: NDArray[np.int64], scores: NDArray[np.float64], cap: Cap
) -> NDArray[np.bool_]:
    kept = np.ones(len(scores), bool)
    for owners, limit in ((category_ids, cap.per_class), (image_ids, cap.per_image)):
        if limit is None or not kept.any():
            continue
        where = np.flatnonzero(kept)
        _, counts = np.unique(owners[where], return_counts=True)
        if counts.max() > limit:
            # lexsort is stable: equal scores stay in the order of the file.
            order = where[np.lexsort((-scores[where], owners[where]))]
            rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
            kept[order[rank >= limit]] = False
    return kept
