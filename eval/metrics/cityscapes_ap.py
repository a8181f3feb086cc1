"""AP of instances by the rules of Cityscapes' own script, ``evalInstanceLevelSemanticLabeling.py``.

They are not COCO's:

- Overlaps are 0.5 to 0.95 by 0.05, and have to be exceeded. Every detection that exceeds one with an object
  belongs to it: the highest score is right, the others are false, whatever they overlap next.
- Objects below 100 pixels, and groups that nobody told apart (``iscrowd``), are neither found nor missed.
- What fits no object is not counted where more of it than the overlap lies on void, groups and small objects.
- AP is the sum of precision times half the distance of the recalls on either side, over all scores that
  occur and a precision of 1 at recall 0: no envelope, no 101 points, no limit of detections, no sizes.

The script's AP within 50 and 100 metres needs a distance of each object, which the published annotations do
not have; they are not told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_tools

from eval.metrics.ground_truth import GroundTruth, read_ground_truth
from eval.metrics.json_files import uncollected
from eval.metrics.results import Results, read_results
from eval.metrics.run_lengths import check_masks
from eval.metrics.scores import Category, CityscapesScores, ClassScore
from ovperception.errors import InvalidDataset

__all__ = ["CITYSCAPES_OVERLAPS", "SMALLEST_OBJECT", "score_cityscapes"]

CITYSCAPES_OVERLAPS = np.arange(0.5, 1.0, 0.05)
"""As the script makes them: the third is a hair above 0.6."""
SMALLEST_OBJECT = 100
"""Pixels of an object that counts."""

_UNKNOWN = np.full(len(CITYSCAPES_OVERLAPS), np.nan)
_MASK = tuple[Mapping[str, Any], float]  # RLE and its pixels


def score_cityscapes(
    truth: str | Path | Mapping[str, Any],
    results: str | Path | Sequence[Mapping[str, Any]],
    *,
    groups: Mapping[str, Collection[int]] | None = None,
    image_ids: Collection[int] | None = None,
) -> CityscapesScores:
    """``AP`` over ten overlaps and ``AP50``; with groups, ``AP_<group>`` and ``AP50_<group>``.

    Args:
        truth: path or content of a COCO-format file with RLE masks, as `cityscapes_truth` makes it of the
            official pictures: ``iscrowd`` says group, and ``void`` of an image is the RLE of what is not
            judged there.
        results: path or content of a result file with masks; those without pixels are passed over.
        groups: name -> ids of its classes; with groups, only their classes are judged.
        image_ids: the images to judge; None for all.

    Raises:
        MissingFile: there is no such file.
        InvalidDataset: a file is not what it should be, or objects are polygons.
    """
    chosen = sorted({i for ids in groups.values() for i in ids}) if groups else None
    with uncollected():
        expected = read_ground_truth(truth, masks=True, image_ids=image_ids, category_ids=chosen)
        found = read_results(results, expected, masks=True)
        void = _void(expected)
        columns = _matched(expected, found, void)
    answers = {c.id: columns[c.id].precision() for c in expected.categories}
    metrics = _means(answers.values())
    for name, ids in (groups or {}).items():
        metrics |= {
            f"{key}_{name}": ap for key, ap in _means(answers[i] for i in ids if i in answers).items()
        }
    unjudged = Counter({"void_not_told": len(expected.images) - len(void)})
    return CityscapesScores(
        metrics=metrics,
        per_class=tuple(_class_score(c, answers[c.id], expected, found) for c in expected.categories),
        rules={
            "AP": "Cityscapes",
            "iou": "masks, above 0.5 to 0.95 by 0.05",
            "smallest object": f"{SMALLEST_OBJECT} pixels",
            "groups and void": "not judged",
        },
        images=len(expected.images),
        warnings=+(expected.warnings + found.warnings + unjudged),
    )


def _means(answers: Iterable[NDArray[np.float64] | None]) -> dict[str, float | None]:
    # In the order of the script's sums: classes without objects are there, as NaN.
    table = np.array([_UNKNOWN if ap is None else ap for ap in answers]).reshape(-1, len(_UNKNOWN))
    if np.isnan(table).all():
        return {"AP": None, "AP50": None}
    return {"AP": float(np.nanmean(table)), "AP50": float(np.nanmean(table[:, 0].copy()))}


def _class_score(
    category: Category, answer: NDArray[np.float64] | None, expected: GroundTruth, found: Results
) -> ClassScore:
    objects = (expected.category_ids == category.id) & ~expected.crowd
    detections = int((found.category_ids == category.id).sum())
    values = _means([answer]) | {"objects": int(objects.sum()), "detections": detections}
    return ClassScore(category=category, values=values)


@dataclass(slots=True)
class _Column:
    """What one class gathers over the images, for each of the overlaps."""

    right: list[list[NDArray[np.float64]]] = field(default_factory=lambda: [[] for _ in CITYSCAPES_OVERLAPS])
    wrong: list[list[NDArray[np.float64]]] = field(default_factory=lambda: [[] for _ in CITYSCAPES_OVERLAPS])
    missed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CITYSCAPES_OVERLAPS), np.int64))
    objects: int = 0

    def add(
        self,
        scores: NDArray[np.float64],
        overlaps: NDArray[np.float64],
        ignored: NDArray[np.float64],
        counts: NDArray[np.bool_],
    ) -> None:
        """One image: D detections and G objects, of which those in `counts` can be found.

        Args:
            scores: (D,).
            overlaps: (D, G).
            ignored: (D,) part of each detection that lies on what is not judged.
            counts: (G,).
        """
        self.objects += int(counts.sum())
        for t, overlap in enumerate(CITYSCAPES_OVERLAPS):
            above = overlaps > overlap
            for claims in above[:, counts].T:
                claimed = np.sort(scores[claims])
                self.missed[t] += not len(claimed)
                self.right[t].append(claimed[-1:])
                self.wrong[t].append(claimed[:-1])
            self.wrong[t].append(scores[~above.any(axis=1) & (ignored <= overlap)])

    def precision(self) -> NDArray[np.float64] | None:
        """(T,) AP at each overlap; None without objects."""
        if not self.objects:
            return None
        sides = zip(self.right, self.wrong, self.missed.tolist(), strict=True)
        return np.array(
            [
                _area(np.concatenate(right or [_NONE]), np.concatenate(wrong or [_NONE]), missed)
                for right, wrong, missed in sides
            ]
        )


_NONE = np.zeros(0)


def _area(right: NDArray[np.float64], wrong: NDArray[np.float64], missed: int) -> float:
    """Under the curve of the scores of right and wrong detections."""
    if not len(right):
        return 0.0
    scores = np.concatenate([right, wrong])
    order = np.argsort(scores, kind="stable")
    below = np.concatenate([[0], np.cumsum(order < len(right))])
    _, first = np.unique(scores[order], return_index=True)
    hits = len(right) - below[first]  # at this score and above
    precision = hits / (len(scores) - first)
    recall = hits / (len(right) + missed)
    precision = np.append(precision, 1.0)  # of recall 0, which no score has
    beside = np.concatenate([recall[:1], recall, [0.0, 0.0]])
    return float(np.dot(precision, (beside[:-2] - beside[2:]) / 2))


def _void(truth: GroundTruth) -> dict[int, Mapping[str, Any]]:
    """What is not judged, by the id of the image."""
    told = [image for image in truth.images if image.get("void") is not None]
    sizes = truth.sizes(np.array([image["id"] for image in told], np.int64))
    masks, _ = check_masks([image["void"] for image in told], sizes, "void")
    return {image["id"]: mask for image, mask in zip(told, masks, strict=True)}


def _matched(truth: GroundTruth, found: Results, void: Mapping[int, Mapping[str, Any]]) -> dict[int, _Column]:
    columns = {category.id: _Column() for category in truth.categories}
    assert found.masks is not None
    objects = _by_place(truth.image_ids, truth.category_ids)
    answers = _by_place(found.image_ids, found.category_ids, found.areas > 0)
    for image, category in sorted({*objects, *answers}):
        true, given = (rows.get((image, category), _NO_ROWS) for rows in (objects, answers))
        shapes = [found.masks[i] for i in given]
        solid = _pixels(truth, true)
        pixels = np.array([area for _, area in solid])
        areas = found.areas[given]
        shared = _shared(shapes, areas, [mask for mask, _ in solid])
        overlaps = shared / (areas[:, None] + pixels - shared)
        counts = ~truth.crowd[true] & (pixels >= SMALLEST_OBJECT)
        # A group that is small as well counts twice, as it does in the script.
        ignored = shared @ (truth.crowd[true].astype(float) + (pixels < SMALLEST_OBJECT))
        if image in void:
            ignored = ignored + _shared(shapes, areas, [void[image]])[:, 0]
        columns[category].add(found.scores[given], overlaps, ignored / areas, counts)
    return columns


_NO_ROWS = np.zeros(0, np.int64)


def _by_place(
    image_ids: NDArray[np.int64], category_ids: NDArray[np.int64], kept: NDArray[np.bool_] | None = None
) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Rows of each image and class."""
    rows = np.arange(len(image_ids)) if kept is None else np.flatnonzero(kept)
    order = rows[np.lexsort((rows, category_ids[rows], image_ids[rows]))]
    keys = np.stack([image_ids[order], category_ids[order]], axis=1)
    starts = np.flatnonzero((np.diff(keys, axis=0, prepend=keys[:1] - 1) != 0).any(axis=1))
    parts = np.split(order, starts[1:]) if len(order) else []
    return {(int(image_ids[part[0]]), int(category_ids[part[0]])): part for part in parts}


def _pixels(truth: GroundTruth, rows: Iterable[int]) -> list[_MASK]:
    """RLE and pixels of objects: the script counts them, whatever the file says of the area."""
    assert truth.segmentations is not None
    masks = [truth.segmentations[i] for i in rows]
    for row, mask in zip(rows, masks, strict=True):
        if not isinstance(mask, Mapping):
            raise InvalidDataset(
                "Cityscapes' rules judge pixels, and a polygon has none of its own",
                field=f"annotations[{row}].segmentation",
                expected="COCO RLE",
                got=type(mask).__name__,
                mend="Name the folder of *_gtFine_instanceIds.png, or write masks as RLE.",
            )
    return [(mask, float(mask_tools.area(mask))) for mask in masks]


def _shared(
    masks: list[Mapping[str, Any]], areas: NDArray[np.float64], others: list[Mapping[str, Any]]
) -> NDArray[np.float64]:
    """(D, G) pixels in both."""
    if not masks or not others:
        return np.zeros((len(masks), len(others)))
    parts = mask_tools.iou(masks, others, [1] * len(others))  # of the first; a whole number over its area
    shared: NDArray[np.float64] = np.rint(parts * areas[:, None])
    return shared
