"""Our mIoU inside mmsegmentation, beside its ``IoUMetric``.

In a configuration file::

    custom_imports = dict(imports=["eval.interop.mmseg_metric"])
    val_evaluator = [dict(type="IoUMetric"), dict(type="OVPerceptionIoU", rule="mmseg")]

Importing this module registers the metric where mmengine and mmseg are installed, and does nothing where they
are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics import AVERAGING_RULES, AveragingRule, Category, ConfusionMatrix, score_semantic
from ovperception.dependencies import missing
from ovperception.errors import InvalidParameter, MissingDependency

__all__ = ["counted", "metric", "summed"]

NAME = "OVPerceptionIoU"
Counts = tuple[NDArray[np.int64], NDArray[np.int64]]


def counted(sample: Mapping[str, Any], classes: int, ignore_label: int = 255) -> Counts:
    """The pixels of one image: the cells of the confusion matrix that are not zero, and their counts.

    Args:
        sample: a ``SegDataSample`` as a mapping, with "pred_sem_seg" and "gt_sem_seg", each with "data".
        classes: K.
        ignore_label: of pixels that are not judged.

    Raises:
        InvalidRegions: the maps differ in size, or a label has no class.
    """
    maps = []
    for name in ("gt_sem_seg", "pred_sem_seg"):
        data = sample[name]["data"]
        array = np.asarray(data.cpu() if hasattr(data, "cpu") else data)
        maps.append(array.reshape(array.shape[-2:]).astype(np.int64))
    confusion = ConfusionMatrix(classes)
    confusion.add(maps[0], maps[1], ignore_label=ignore_label)
    cells = np.flatnonzero(confusion.counts)
    return cells, confusion.counts.ravel()[cells]


def summed(parts: Sequence[Counts], names: Sequence[str], rule: AveragingRule) -> dict[str, float]:
    """mIoU, fwIoU, mACC and pACC of all images, in percent.

    Args:
        parts: of `counted`.
        names: (K,) of the classes.
        rule: what means are taken over.
    """
    total = ConfusionMatrix(len(names))
    for cells, counts in parts:
        total.counts.ravel()[cells] += counts
        total.images += 1
    scores = score_semantic(total, [Category(id=i, name=n) for i, n in enumerate(names)], rule=rule)
    return {n: float("nan") if v is None else 100 * v for n, v in scores.metrics.items()}


@cache
def metric() -> type:
    """The class that mmengine's registry knows as ``OVPerceptionIoU``; registers it.

    Raises:
        MissingDependency: mmengine or mmseg is not installed.
    """
    try:
        from mmengine.evaluator import BaseMetric
        from mmseg.registry import METRICS
    except ModuleNotFoundError as error:
        raise missing(error, NAME) from error

    class OVPerceptionIoU(BaseMetric):  # type: ignore[misc]  # mmengine has no types
        """See the module; ``rule`` is one of detectron2, mmseg and sceneparsing."""

        default_prefix = "ovp"

        def __init__(
            self, rule: AveragingRule = "mmseg", ignore_index: int = 255, **settings: Any
        ) -> None:  # what mmengine passes on is mmengine's business
            super().__init__(**settings)
            if rule not in AVERAGING_RULES:
                raise InvalidParameter(
                    "This averaging rule is not known",
                    field="rule",
                    expected=", ".join(AVERAGING_RULES),
                    got=rule,
                )
            self._rule: AveragingRule = rule
            self._ignore = ignore_index

        def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
            """Takes a batch."""
            classes = len(self.dataset_meta["classes"])
            self.results.extend(counted(sample, classes, self._ignore) for sample in data_samples)

        def compute_metrics(self, results: list[Counts]) -> dict[str, float]:
            """The numbers of all processes together, in percent."""
            return summed(results, list(self.dataset_meta["classes"]), self._rule)

    METRICS.register_module(name=NAME, module=OVPerceptionIoU, force=True)
    return OVPerceptionIoU


def _register() -> None:
    """Registers, where there is something to register with."""
    try:
        metric()
    except MissingDependency:
        return


_register()
