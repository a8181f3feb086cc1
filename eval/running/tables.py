"""From the answer of a scorer to what reports show: rows, curves, breakdowns, confusions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from eval.metrics import (
    Category,
    CityscapesScores,
    ConfusionMatrix,
    DetectionScores,
    PanopticScores,
    PrecisionRecall,
    Scores,
    SemanticScores,
    VOCScores,
    warning_lines,
)
from eval.outcome import Breakdown, ClassRow, ConfusedPair, CountedWarning, Curve

__all__ = [
    "breakdowns",
    "class_rows",
    "confused_labels",
    "confused_pairs",
    "counted_warnings",
    "curves",
    "group_metrics",
]

Groups = Mapping[str, Sequence[int]]
_MOST_PAIRS = 200
_CURVE_IOUS = (0.5, 0.75)
_SIZES = (("small", "s"), ("medium", "m"), ("large", "l"))
_KINDS = {"frequency": ("r", "c", "f"), "words": ("base", "novel"), "kind": ("things", "stuff")}


def class_rows(scores: Scores, groups: Groups) -> tuple[ClassRow, ...]:
    """The rows of every class that was judged."""
    return tuple(
        ClassRow(
            id=row.category.id,
            name=row.category.name,
            groups=tuple(name for name, ids in groups.items() if row.category.id in set(ids)),
            is_thing=row.category.is_thing,
            values=dict(row.values),
        )
        for row in scores.per_class
    )


def group_metrics(scores: DetectionScores, groups: Groups) -> dict[str, float | None]:
    """``AP_<group>`` and ``AP50_<group>`` of groups that the scorer did not know of."""
    found: dict[str, float | None] = {}
    for name, ids in groups.items():
        found[f"AP_{name}"] = scores.curves.ap(ids)
        found[f"AP50_{name}"] = scores.curves.ap(ids, iou=0.5)
    return found


def curves(found: PrecisionRecall, names: Mapping[int, str], groups: Groups) -> tuple[Curve, ...]:
    """Means over all classes and over each group, then each class at IoU 0.5."""
    rows = []
    for name, ids in {"all": list(found.category_ids), **groups}.items():
        for iou in _CURVE_IOUS:
            known = [found.curve(i, iou=iou) for i in ids if i in found.category_ids]
            counted = [curve for curve in known if curve is not None]
            if counted:
                rows.append(_curve(name, None, iou, np.mean(counted, axis=0)))
    for category_id in found.category_ids:
        one = found.curve(category_id)
        if one is not None:
            rows.append(_curve(names[category_id], category_id, 0.5, one))
    return tuple(rows)


def _curve(name: str, class_id: int | None, iou: float, values: NDArray[np.float64]) -> Curve:
    return Curve(name=name, class_id=class_id, iou=iou, precision=tuple(np.round(values, 6).tolist()))


def breakdowns(scores: Scores, groups: Groups) -> tuple[Breakdown, ...]:
    """By size of the objects, and by every kind of group."""
    found = []
    metrics = scores.metrics
    if isinstance(scores, DetectionScores):
        columns = {"AP": "AP{}", "AR": "AR{}"}
        limit = next((name.partition("@")[2] for name in metrics if "@" in name), "")
        suffix = f"@{limit}" if limit else ""
        rows = {
            size: {
                name: metrics.get(_keyed(column, letter, name, suffix)) for name, column in columns.items()
            }
            for size, letter in _SIZES
        }
        found.append(Breakdown(name="size", rows=rows))
    for name, parts in _KINDS.items():
        here = {part: _of_group(scores, part, groups[part]) for part in parts if part in groups}
        if here:
            found.append(Breakdown(name=name, rows=here))
    return tuple(found)


def _keyed(column: str, letter: str, name: str, suffix: str) -> str:
    return column.format(letter) + (suffix if name == "AR" else "")


def _of_group(scores: Scores, part: str, ids: Sequence[int]) -> dict[str, float | None]:
    if isinstance(scores, DetectionScores):
        return {"AP": scores.curves.ap(ids), "AP50": scores.curves.ap(ids, iou=0.5)}
    wanted = set(ids)
    if isinstance(scores, PanopticScores):
        columns = {"PQ": "PQ", "SQ": "SQ", "RQ": "RQ"}
    elif isinstance(scores, CityscapesScores):
        columns = {"AP": "AP", "AP50": "AP50"}
    elif isinstance(scores, VOCScores):
        columns = {"AP": "AP"}
    else:
        columns = {"mIoU": "IoU", "mACC": "ACC"}
    means: dict[str, float | None] = {}
    for name, column in columns.items():
        values = [row.values.get(column) for row in scores.per_class if row.category.id in wanted]
        known = [value for value in values if value is not None]
        means[name] = sum(known) / len(known) if known else None
    return means


def confused_pairs(
    pairs: Mapping[tuple[int, int], int], categories: Sequence[Category]
) -> tuple[ConfusedPair, ...]:
    """The most frequent confusions; indices into the categories, -1 for none."""
    totals: Counter[int] = Counter()
    for (true, _), count in pairs.items():
        totals[true] += count
    names = [category.name for category in categories] + [""]
    wrong = sorted(
        ((count, true, given) for (true, given), count in pairs.items() if true != given),
        key=lambda row: (-row[0], row[1], row[2]),
    )
    return tuple(
        ConfusedPair(truth=names[true], predicted=names[given], count=count, share=count / totals[true])
        for count, true, given in wrong[:_MOST_PAIRS]
    )


def confused_labels(scores: SemanticScores, categories: Sequence[Category]) -> tuple[ConfusedPair, ...]:
    """The most frequent confusions of pixels."""
    confusion: ConfusionMatrix = scores.confusion
    count = len(confusion.counts)
    cells = np.flatnonzero(confusion.counts)
    pairs = {}
    for cell in cells.tolist():
        true, given = divmod(cell, count + 1)
        pairs[true, given if given < count else -1] = int(confusion.counts[true, given])
    return confused_pairs(pairs, categories)


def counted_warnings(warnings: Mapping[str, int]) -> tuple[CountedWarning, ...]:
    """What was odd, spelled out."""
    return tuple(
        CountedWarning(name=name, count=count, text=warning_lines({name: count})[0].partition(" x ")[2])
        for name, count in sorted(warnings.items(), key=lambda item: (-item[1], item[0]))
        if count
    )
