"""Result files of COCO and LVIS, checked against their annotations and turned into columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics.columns import (
    box_column,
    checked_boxes,
    checked_integers,
    checked_numbers,
    integer_column,
    number_column,
    records,
)
from eval.metrics.ground_truth import GroundTruth
from eval.metrics.json_files import naming, read_json
from eval.metrics.plain_results import read_plain_boxes
from eval.metrics.run_lengths import check_masks
from ovperception.errors import InvalidDataset

__all__ = ["Cap", "Results", "read_results", "with_area"]


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
    with naming(source):
        return _checked(_given(source, masks), truth, cap or Cap())


def _checked(given: _Given, truth: GroundTruth, cap: Cap) -> Results:
    image_ids, category_ids, scores = given.image_ids, given.category_ids, given.scores
    warnings: Counter[str] = Counter()
    _check_images(image_ids, truth)
    warnings["score_out_of_range"] += int(((scores < 0) | (scores > 1)).sum())
    kept = _capped(image_ids, category_ids, scores, cap)
    warnings["capped_result"] += len(kept) - int(kept.sum())
    kept &= _asked_for(image_ids, category_ids, kept, truth, warnings)
    if not kept.all():
        given = given.only(kept)
    if len(given.scores):
        warnings["image_without_results"] += len(truth.images) - len(np.unique(given.image_ids))
    else:
        warnings["no_results"] += 1
    if given.boxes is not None:
        areas, rles = given.boxes[:, 2] * given.boxes[:, 3], None
        warnings["degenerate_box"] += int((areas == 0).sum())
    else:
        rles, pixels = check_masks(given.masks, truth.sizes(given.image_ids), "results")
        areas = pixels.astype(np.float64)
        warnings["empty_mask"] += int((pixels == 0).sum())
    return Results(
        image_ids=given.image_ids,
        category_ids=given.category_ids,
        scores=given.scores,
        boxes=given.boxes,
        masks=rles,
        areas=areas,
        warnings=warnings,
    )


def with_area(results: Results) -> Results:
    """Without boxes and masks of area 0: lvis-api passes over them, which COCO counts as false."""
    there = results.areas > 0
    if there.all():
        return results
    return Results(
        image_ids=results.image_ids[there],
        category_ids=results.category_ids[there],
        scores=results.scores[there],
        boxes=None if results.boxes is None else results.boxes[there],
        masks=None if results.masks is None else list(compress(results.masks, there.tolist())),
        areas=results.areas[there],
        warnings=results.warnings,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Given:
    """A result file by column; masks are not looked at yet."""

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64] | None
    masks: list[Any]

    def only(self, kept: NDArray[np.bool_]) -> _Given:
        return _Given(
            image_ids=self.image_ids[kept],
            category_ids=self.category_ids[kept],
            scores=self.scores[kept],
            boxes=None if self.boxes is None else self.boxes[kept],
            masks=list(compress(self.masks, kept.tolist())),
        )


def _given(source: str | Path | Sequence[Mapping[str, Any]], masks: bool) -> _Given:
    if isinstance(source, str | Path):
        plain = read_plain_boxes(Path(source)) if not masks and Path(source).is_file() else None
        if plain is not None:
            return _Given(
                image_ids=checked_integers(plain["image_id"], "image_id", "results"),
                category_ids=checked_integers(plain["category_id"], "category_id", "results"),
                scores=checked_numbers(plain["score"], "score", "results"),
                boxes=checked_boxes(plain["bbox"], "results"),
                masks=[],
            )
    content = read_json(source) if isinstance(source, str | Path) else source
    if isinstance(content, Mapping) and "annotations" in content:
        content = content["annotations"]
    rows = records(content, "results")
    return _Given(
        image_ids=integer_column(rows, "image_id", "results"),
        category_ids=integer_column(rows, "category_id", "results"),
        scores=number_column(rows, "score", "results"),
        boxes=None if masks else box_column(rows, "results"),
        masks=[row.get("segmentation") for row in rows] if masks else [],
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
