"""mIoU and its kin from one confusion matrix, by each of the averaging rules in use.

The rules differ in the classes that a mean is taken over, and agree where every class occurs:

- detectron2: classes with ground-truth pixels;
- mmseg: classes with a union, so that one which is predicted but never there counts as zero;
- sceneparsing: all classes, those that occur nowhere as zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from eval.metrics.confusion import ConfusionMatrix
from eval.metrics.scores import Category, ClassScore, SemanticScores
from ovperception.errors import InvalidParameter

__all__ = ["AVERAGING_RULES", "AveragingRule", "iou_per_class", "miou", "score_semantic"]

AveragingRule = Literal["detectron2", "mmseg", "sceneparsing"]
AVERAGING_RULES: tuple[AveragingRule, ...] = get_args(AveragingRule)

_COUNTED_TEXTS = {
    "detectron2": "classes with ground truth",
    "mmseg": "classes with a union",
    "sceneparsing": "all classes",
}


def iou_per_class(confusion: ConfusionMatrix, rule: AveragingRule = "detectron2") -> NDArray[np.float64]:
    """(K,) intersection over union, NaN for a class that the rule does not count.

    Raises:
        InvalidParameter: the rule is not known.
    """
    pixels, predicted, hits = confusion.truth_pixels, confusion.predicted_pixels, confusion.hits
    iou: NDArray[np.float64] = hits / np.maximum(pixels + predicted - hits, 1)
    return np.where(_counted(pixels, predicted, rule), iou, np.nan)


def _counted(
    pixels: NDArray[np.int64], predicted: NDArray[np.int64], rule: AveragingRule
) -> NDArray[np.bool_]:
    if rule not in AVERAGING_RULES:
        raise InvalidParameter(
            "This averaging rule is not known",
            field="rule",
            expected=f"one of {', '.join(AVERAGING_RULES)}",
            got=rule,
        )
    present = pixels > 0
    if rule == "mmseg":
        return present | (predicted > 0)
    return np.ones(len(present), bool) if rule == "sceneparsing" else present


def miou(
    confusion: ConfusionMatrix,
    classes: Collection[int] | None = None,
    *,
    rule: AveragingRule = "detectron2",
) -> float | None:
    """Mean IoU over the classes, of those the rule counts; None if it counts none, or nothing was judged."""
    iou = iou_per_class(confusion, rule)
    chosen = iou if classes is None else iou[sorted(classes)]
    return _mean(chosen) if confusion.truth_pixels.any() else None


def score_semantic(
    confusion: ConfusionMatrix,
    categories: Sequence[Category],
    *,
    rule: AveragingRule = "detectron2",
    ignore_rule: str = "",
    background_rule: str = "",
    warnings: Counter[str] | None = None,
) -> SemanticScores:
    """mIoU, fwIoU, mACC, pACC, and mIoU of each group of classes.

    Args:
        confusion: what was counted.
        categories: (K,) the classes in the order of its rows.
        rule: what means are taken over.
        ignore_rule: for the report: which pixels are not judged.
        background_rule: for the report: what is background and who decides.
        warnings: of the reader of the maps.

    Raises:
        InvalidParameter: the rule is not known, or there are not as many categories as were counted.
    """
    if len(categories) != len(confusion.counts):
        raise InvalidParameter(
            "The categories are not those that were counted",
            field="categories",
            expected=str(len(confusion.counts)),
            got=len(categories),
        )
    pixels = confusion.truth_pixels
    judged = int(pixels.sum())
    iou = iou_per_class(confusion, rule)
    counted = _counted(pixels, confusion.predicted_pixels, rule)
    accuracy = np.where(counted, confusion.hits / np.maximum(pixels, 1), np.nan)
    if rule == "mmseg":  # nothing of it could be found: 0 / 0 there
        accuracy[pixels == 0] = np.nan
    # A class without pixels weighs nothing: the rule makes no difference here.
    present = iou_per_class(confusion)[pixels > 0]
    metrics: dict[str, float | None] = {
        "mIoU": _mean(iou) if judged else None,
        "fwIoU": float(np.sum(present * (pixels[pixels > 0] / judged))) if judged else None,
        "mACC": _mean(accuracy) if judged else None,
        "pACC": float(confusion.hits.sum() / judged) if judged else None,
    }
    for group in dict.fromkeys(c.group for c in categories if c.group):
        metrics[f"mIoU_{group}"] = miou(
            confusion, [i for i, c in enumerate(categories) if c.group == group], rule=rule
        )
    rules = {
        "averaging": f"{rule} ({_COUNTED_TEXTS[rule]})",
        "counted": f"{int((~np.isnan(iou)).sum())} classes",
    }
    rules |= {n: t for n, t in (("ignore", ignore_rule), ("background", background_rule)) if t}
    noted = Counter(warnings or {})
    noted["undecided_pixel"] += int(confusion.counts[:, -1].sum())
    return SemanticScores(
        metrics=metrics,
        per_class=_per_class(confusion, categories, iou, accuracy),
        rules=rules,
        images=confusion.images,
        confusion=confusion,
        warnings=+noted,
    )


def _per_class(
    confusion: ConfusionMatrix,
    categories: Sequence[Category],
    iou: NDArray[np.float64],
    accuracy: NDArray[np.float64],
) -> tuple[ClassScore, ...]:
    pixels, predicted = confusion.truth_pixels, confusion.predicted_pixels
    return tuple(
        ClassScore(
            category=category,
            values={
                "IoU": _number(iou[i]),
                "ACC": _number(accuracy[i]),
                "pixels": int(pixels[i]),
                "predicted_pixels": int(predicted[i]),
            },
        )
        for i, category in enumerate(categories)
    )


def _number(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: NDArray[np.float64]) -> float | None:
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if counted.size else None
