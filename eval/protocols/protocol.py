"""What a protocol is: data, words, metric and rules, everything that must be known to compare a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eval.metrics.ap_engine import IoUKind
from eval.metrics.pascal_voc import VOCCurve
from eval.metrics.semantic import AveragingRule
from eval.metrics.semantic_boundary import BoundaryRule
from ovperception.datasets.scenes.categories import SceneCategory
from ovperception.datasets.scenes.vocabulary import chosen_categories
from ovperception.datasets.vocabularies.files import Part, part_of
from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from ovperception.head import Task

__all__ = [
    "AP",
    "PQ",
    "Background",
    "EvaluationProtocol",
    "FewShot",
    "MeanIoU",
    "Metric",
    "Resolution",
    "Window",
    "groups_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AP:
    """Average precision of boxes or masks.

    Attributes:
        kind: whose rules: COCO's, LVIS's federated ones, PASCAL VOC's or Cityscapes'.
        iou: of boxes, masks or boundaries.
        fixed: LVIS only: 10,000 detections a class over the whole set, no limit an image (Dave et al. 2021).
        max_detections: kept of an image over all classes; None for no limit. COCO's evaluation itself then
            looks at the first 100 of each class.
        generalized: base and novel names asked at once; False where the names of one part are asked alone;
            None where there are no parts.
        curve: VOC only: what of the curve is averaged.
    """

    kind: Literal["coco", "lvis", "voc", "cityscapes"]
    iou: IoUKind
    fixed: bool = False
    max_detections: int | None = 100
    generalized: bool | None = None
    curve: VOCCurve = "area"

    def __post_init__(self) -> None:
        if self.kind == "voc" and self.iou != "bbox":
            raise InvalidParameter("VOC's AP is of boxes", field="iou", expected="bbox", got=self.iou)
        if self.kind == "cityscapes" and self.iou != "segm":
            raise InvalidParameter("Cityscapes' AP is of masks", field="iou", expected="segm", got=self.iou)
        if self.fixed and (self.kind != "lvis" or self.max_detections is not None):
            raise InvalidParameter(
                "Fixed AP is LVIS's, without a limit an image", field="fixed", got=self.max_detections
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanIoU:
    """mIoU, fwIoU, mACC, pACC.

    Attributes:
        averaging: which classes the mean is over, see `eval.metrics.semantic`.
        boundary: whose boundary IoU is told as well, see `eval.metrics.semantic_boundary`; None for none.
    """

    averaging: AveragingRule = "detectron2"
    boundary: BoundaryRule | None = None


@dataclass(frozen=True, slots=True)
class PQ:
    """PQ, SQ, RQ of all classes, things and stuff, by panopticapi's rules of void and crowd."""


@dataclass(frozen=True, slots=True)
class FewShot:
    """mIoU of a fold and FB-IoU: pixels of each class summed over its episodes (HSNet's evaluator)."""


Metric = AP | MeanIoU | PQ | FewShot


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """What is done with pixels of no class.

    Attributes:
        rule: ``none``: every pixel has a class. ``not_judged``: such pixels do not count. ``class``: they are
            a class with words of its own. ``threshold``: a class with words, which also gets every pixel
            whose best probability is below `threshold`. ``other_names``: names of a wider vocabulary that
            the data set lacks.
        threshold: of ``threshold``, 0-1.
    """

    rule: Literal["none", "not_judged", "class", "threshold", "other_names"] = "none"
    threshold: float | None = None

    def __post_init__(self) -> None:
        if (self.rule == "threshold") != (self.threshold is not None):
            raise InvalidParameter(
                "A background threshold goes with the rule 'threshold'", field="threshold", got=self.rule
            )

    def __str__(self) -> str:
        return self.rule.replace("_", " ") + (f" {self.threshold:g}" if self.threshold is not None else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """How pictures are resized for the model; metrics are always at the original size.

    Attributes:
        shortest_edge: the shorter side becomes this long.
        longest_edge: unless the longer one would exceed this.
        square: both sides become `shortest_edge`, whatever the shape (LSeg's zero-shot evaluator).
    """

    shortest_edge: int
    longest_edge: int | None = None
    square: bool = False

    def __str__(self) -> str:
        if self.square:
            return f"{self.shortest_edge} x {self.shortest_edge}"
        return f"shortest edge {self.shortest_edge}" + (
            f", at most {self.longest_edge}" if self.longest_edge else ""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window that slides over the resized picture; scores of overlaps are averaged.

    Attributes:
        size: side in pixels.
        stride: step in pixels.
    """

    size: int
    stride: int

    def __str__(self) -> str:
        return f"window {self.size}, stride {self.stride}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationProtocol:
    """A way to measure, by name.

    Attributes:
        name: as asked for.
        title: in a few words.
        data: name of the data set, see `ovperception.datasets.named`.
        split: of the data set.
        vocabulary: name of the class list that is asked and judged.
        asked: name of another list that is asked, where answers are mapped to `vocabulary`; else None.
        asked_part: part of the vocabulary that is asked and judged alone; None for all of it.
        templates: name of the template set; None leaves it to the model.
        task: what the model is asked for.
        metric: what is computed, and by whose rules.
        headline: name of the number people quote.
        groups: parts of the vocabulary that numbers are broken down by.
        background: what is done with pixels of no class.
        ignore: which truth is not judged.
        resolution: of the published numbers; None leaves it to the model.
        window: sliding window of the published numbers, if any.
        score_floor: detections below are not kept; 0 keeps all, as AP asks.
        source: where the rules are written down.
        notes: what else one should know before comparing.
    """

    name: str
    title: str
    data: str
    split: str
    vocabulary: str
    task: Task
    metric: Metric
    headline: str
    asked: str | None = None
    asked_part: Part | None = None
    templates: str | None = None
    groups: tuple[Part, ...] = ()
    background: Background = Background()
    ignore: str = "nothing"
    resolution: Resolution | None = None
    window: Window | None = None
    score_floor: float = 0.0
    source: tuple[str, ...] = ()
    notes: str = ""

    @property
    def words_rule(self) -> str:
        """How the synonyms of a class become one score; the same in all protocols."""
        return "templates averaged for each synonym, a class scores as its best synonym"


def groups_of(protocol: EvaluationProtocol) -> dict[Part, tuple[int, ...]]:
    """The class indices of each group that a protocol's numbers are broken down by.

    Raises:
        UnknownVocabulary: the vocabulary is not parted so.
    """
    if protocol.vocabulary != "scenes":
        return {part: part_of(protocol.vocabulary, part) for part in protocol.groups}
    tests: dict[Part, Callable[[SceneCategory], bool]] = {
        "base": lambda c: not c.is_novel,
        "novel": lambda c: c.is_novel,
        "things": lambda c: c.is_thing,
        "stuff": lambda c: not c.is_thing,
        "r": lambda c: c.frequency == "r",
        "c": lambda c: c.frequency == "c",
        "f": lambda c: c.frequency == "f",
    }
    categories = chosen_categories("all")
    return {p: tuple(i for i, c in enumerate(categories) if tests[p](c)) for p in protocol.groups}
