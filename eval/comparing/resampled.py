"""The differences of two runs in every resample: of their metrics and of each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.comparing.matches import read_matches
from eval.comparing.resampled_ap import resampled_ap
from eval.comparing.resampled_maps import resampled_qualities
from eval.comparing.resampled_voc import read_voc_matches, resampled_voc
from eval.outcome import ClassRow, Outcome
from eval.protocols import protocol
from eval.protocols.protocol import AP
from ovperception.errors import NotFound, OVPError

__all__ = ["Resampled", "resample"]

_CLOSE = 1e-6
_MEANS = {"IoU": "mIoU", "ACC": "mACC", "boundary_IoU": "boundary_mIoU"}
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resampled:
    """B - A in every resample.

    Attributes:
        metrics: name -> (R,); those that images add up to.
        per_class: (R, K) in the order of A's classes.
    """

    metrics: Mapping[str, Values]
    per_class: Values


def resample(
    first: Outcome, second: Outcome, folders: tuple[Path, Path], weights: NDArray[np.int32]
) -> Resampled | str:
    """The differences, or why there are none, in a few words.

    Args:
        first: A.
        second: B.
        folders: of A and B.
        weights: (R, I) how often each of A's images is drawn.
    """
    try:
        qualities = [_qualities(first, folders[0]), _qualities(second, folders[1])]
    except OVPError as error:
        return error.message
    for quality in qualities:
        if isinstance(quality, str):
            return quality
    # B may list images and classes in another order.
    images = {image.image_id: i for i, image in enumerate(first.images)}
    columns = np.array([images[image.image_id] for image in second.images])
    classes = {row.id: k for k, row in enumerate(second.per_class)}
    rows = np.array([classes[row.id] for row in first.per_class])
    found: list[dict[str, Values]] = []
    means: list[dict[str, Values]] = []
    for run, quality, drawn in zip((first, second), qualities, (weights, weights[:, columns]), strict=True):
        assert not isinstance(quality, str)
        whole = _means(quality(np.ones((1, drawn.shape[1]), np.int32)), run)
        for name, value in whole.items():
            told = run.metrics.get(name)
            if told is not None and abs(float(value[0]) - told) > _CLOSE:
                return f"the files of {run.facts.model or 'a run'} give {name} {value[0]:.6f}, not {told:.6f}"
        resampled = quality(drawn)
        found.append(resampled)
        means.append(_means(resampled, run))
    leading = next(iter(found[0]))
    return Resampled(
        metrics={name: means[1][name] - means[0][name] for name in means[0] if name in means[1]},
        per_class=found[1][leading][:, rows] - found[0][leading],
    )


_Quality = Callable[[NDArray[np.int32]], dict[str, Values]]


def _qualities(run: Outcome, folder: Path) -> _Quality | str:
    """A function from (R, I) draws to column -> (R, K), the compared column first."""
    if run.counts is not None:
        counts, classes, rule = run.counts, len(run.per_class), run.rules.get("averaging", "").split(" ")[0]
        return lambda drawn: resampled_qualities(counts, classes, drawn, rule)
    try:
        metric = protocol(run.protocol).metric
    except NotFound:
        return "what each image added is not kept by this kind of run"
    if not isinstance(metric, AP) or metric.kind == "cityscapes":
        return "what each image added is not kept for this metric"
    if not run.facts.truth or not run.facts.predictions:
        return "the annotations or the predictions were not kept"
    files = folder / run.facts.truth, folder / run.facts.predictions
    if metric.kind == "voc":
        boxes, curve = read_voc_matches(run, *files), metric.curve
        return lambda drawn: {"mAP": resampled_voc(boxes, drawn, curve)}
    matches = read_matches(run, metric, *files)
    ids = [row.id for row in run.per_class]

    def quality(drawn: NDArray[np.int32]) -> dict[str, Values]:
        ap = resampled_ap(matches, ids, drawn)
        return {"AP": ap.mean(axis=2), "AP50": ap[:, :, 0], "AP75": ap[:, :, 5]}

    return quality


def _means(found: Mapping[str, Values], run: Outcome) -> dict[str, Values]:
    """The metrics of a run that are means of a column over classes, by the names the metrics have."""
    means: dict[str, Values] = {}
    groups = {group for row in run.per_class for group in row.groups}
    for column, values in found.items():
        name = _MEANS.get(column, column)
        if values.ndim == 1:
            means[name] = values
            continue
        means[name] = _mean(values, run, lambda row: True)
        if column == "AP75":
            continue
        means[f"{name}_all"] = means[name]
        for group in groups:
            of_group = _mean(values, run, lambda row, group=group: group in row.groups)  # type: ignore[misc]
            means[f"{name}{'' if group in 'rcf' and column == 'AP' else '_'}{group}"] = of_group
        if {"r", "c", "f"} & groups and column == "AP" and not {"base"} & groups:
            means["AP_base"] = _mean(values, run, lambda row: bool({"c", "f"} & set(row.groups)))
    return {name: value for name, value in means.items() if name in run.metrics}


def _mean(values: Values, run: Outcome, wanted: Callable[[ClassRow], bool]) -> Values:
    """(R,) over the classes that a resample counts; NaN where there is none."""
    chosen = values[:, [k for k, row in enumerate(run.per_class) if wanted(row)]]
    counted = ~np.isnan(chosen)
    total = np.where(counted, chosen, 0.0).sum(axis=1)
    return np.where(counted.any(axis=1), total / np.maximum(counted.sum(axis=1), 1), np.nan)
