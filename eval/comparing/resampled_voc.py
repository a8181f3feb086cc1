"""PASCAL VOC's AP of every class in every resample of the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.comparing.resampled_ap import chunks
from eval.metrics.ground_truth import read_ground_truth
from eval.metrics.pascal_voc import VOCCurve, matched_class
from eval.metrics.results import read_results
from eval.outcome import Outcome

__all__ = ["VOCMatches", "read_voc_matches", "resampled_voc"]

VOCMatches = tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]
"""Of a class: the image of each of n detections that count, the best first; which are right, (n,); objects in
each image, (I,)."""


def read_voc_matches(outcome: Outcome, truth: Path, predictions: Path) -> list[VOCMatches]:
    """Those of each class, in the order of the outcome's.

    Args:
        outcome: whose images and classes are judged.
        truth: annotation file.
        predictions: result file.

    Raises:
        MissingFile, InvalidDataset: a file is gone, or is not what it was.
    """
    ids = [image.image_id for image in outcome.images]
    expected = read_ground_truth(
        truth,
        masks=False,
        image_ids=[i for i in ids if isinstance(i, int)],
        category_ids=[row.id for row in outcome.per_class],
    )
    found = read_results(predictions, expected, masks=False)
    place = {image_id: i for i, image_id in enumerate(ids)}
    matches = []
    for row in outcome.per_class:
        order, right = matched_class(expected, found, row.id)
        there = expected.image_ids[(expected.category_ids == row.id) & ~expected.crowd]
        owners = np.array([place[i] for i in found.image_ids[order].tolist()], np.int64)
        objects = np.bincount([place[i] for i in there.tolist()], minlength=len(ids))
        matches.append((owners, right, objects))
    return matches


def resampled_voc(
    matches: list[VOCMatches], weights: NDArray[np.int32], curve: VOCCurve
) -> NDArray[np.float64]:
    """(R, K) AP; NaN where a resample has no object of the class.

    Args:
        matches: of the K classes.
        weights: (R, I) how often each image is drawn.
        curve: what is taken of the curve.
    """
    found = np.full((len(weights), len(matches)), np.nan)
    for k, (owners, right, objects) in enumerate(matches):
        for rows in chunks(len(weights), len(owners)):
            found[rows, k] = _class(weights[rows][:, owners], right, weights[rows] @ objects, curve)
    return found


def _class(
    drawn: NDArray[np.int32], right: NDArray[np.bool_], objects: NDArray[np.int64], curve: VOCCurve
) -> NDArray[np.float64]:
    """(R,). A detection drawn twice moves recall twice, at the precision after both: that is not lower."""
    hits = np.cumsum(drawn * right, axis=1)
    recall = hits / np.maximum(objects, 1)[:, None]
    precision = hits / np.maximum(np.cumsum(drawn, axis=1), 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    if curve == "area":
        found = (np.diff(recall, axis=1, prepend=0.0) * envelope).sum(axis=1)
    else:
        padded = np.concatenate([envelope, np.zeros((len(drawn), 1))], axis=1)
        points = np.linspace(0, 1, 11)
        reached = np.stack([np.searchsorted(row, points) for row in recall])
        found = np.take_along_axis(padded, reached, axis=1).mean(axis=1)
    return np.where(objects > 0, found, np.nan)
