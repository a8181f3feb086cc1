"""The engines of average precision behind one interface.

`hotcoco` is the default: bit-equal to pycocotools and lvis-api on the goldens and many times faster.
`pycocotools` is the reference itself, with LVIS's federated rules added. Both are given the same checked
columns, so what they differ in is the matching alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from eval.metrics.ground_truth import GroundTruth
from eval.metrics.precision_recall import PrecisionRecall
from eval.metrics.results import Results
from ovperception.errors import InvalidParameter, MissingDependency

__all__ = ["ENGINES", "APEngine", "APTask", "EngineName", "IoUKind", "ap_engine"]

IoUKind = Literal["bbox", "segm", "boundary"]
EngineName = Literal["hotcoco", "pycocotools"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class APTask:
    """What an engine is to match.

    Attributes:
        truth: what is to be found.
        results: what was found.
        iou: of boxes, of masks, or the smaller of a mask's and its boundary's.
        max_detections: limits an image and class in ascending order; means are of the highest.
        federated: LVIS's rules: a detection counts only where its class was looked for, and an unmatched one
            of a class that was not exhaustively annotated is ignored.
        class_agnostic: any object may be matched, whatever its class.
    """

    truth: GroundTruth
    results: Results
    iou: IoUKind
    max_detections: tuple[int, ...]
    federated: bool = False
    class_agnostic: bool = False

    @property
    def category_ids(self) -> tuple[int, ...]:
        """(K,) what the third axis of the answer stands for."""
        return (-1,) if self.class_agnostic else tuple(c.id for c in self.truth.categories)


class APEngine(Protocol):
    """Matches detections to objects and accumulates precision and recall."""

    @property
    def label(self) -> str:
        """Name and version, for the report."""

    def accumulate(self, task: APTask) -> PrecisionRecall:
        """All thresholds, classes, areas and limits of a task."""


def ap_engine(name: EngineName, iou: IoUKind = "bbox") -> APEngine:
    """The engine of a name.

    Args:
        name: one of `ENGINES`.
        iou: what it is to overlap; boundaries are measured by pycocotools' matching whichever is named,
            because hotcoco takes no overlaps from outside.

    Raises:
        InvalidParameter: there is none of this name.
        MissingDependency: it is not installed.
    """
    if name not in ENGINES:
        raise InvalidParameter(
            "This engine is not known", field="engine", expected=f"one of {', '.join(ENGINES)}", got=name
        )
    try:
        if name == "hotcoco" and iou != "boundary":
            from eval.metrics.hotcoco_engine import HotcocoEngine

            return HotcocoEngine()
        from eval.metrics.pycocotools_engine import PycocotoolsEngine

        return PycocotoolsEngine()
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"{error.name} is not installed", mend="pip install 'ovperception[eval]'."
        ) from error
