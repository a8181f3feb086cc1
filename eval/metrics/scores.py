"""What every scorer answers with: numbers, numbers per class, the rules that made them, and warnings.

Reports read any of the three kinds through `Scores`; each kind adds the counts it was made from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from eval.metrics.warning_texts import warning_lines

if TYPE_CHECKING:
    from eval.metrics.confusion import ConfusionMatrix
    from eval.metrics.panoptic_quality import PanopticQuality
    from eval.metrics.precision_recall import PrecisionRecall

__all__ = [
    "Category",
    "CityscapesScores",
    "ClassScore",
    "DetectionScores",
    "FewShotScores",
    "PanopticScores",
    "Scores",
    "SemanticScores",
    "VOCScores",
    "scores_json",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A class as an annotation file lists it.

    Attributes:
        id: in the file; for label maps, the label.
        name: of the class.
        is_thing: it has instances; only the panoptic numbers ask.
        group: what the numbers are broken down by, such as "base", "novel", or LVIS's "r", "c", "f".
    """

    id: int
    name: str
    is_thing: bool = True
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """The numbers of one class.

    Attributes:
        category: the class.
        values: metric -> number, 0-1 or a count; None where nothing can be said.
    """

    category: Category
    values: Mapping[str, float | None]


class Scores(Protocol):
    """What the three kinds have in common."""

    @property
    def kind(self) -> str:
        """Family of the numbers, such as "coco", "lvis-fixed", "cityscapes", "semantic" or "few-shot"."""

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """Headline numbers in the order they are told, 0-1; None where nothing can be said."""

    @property
    def per_class(self) -> tuple[ClassScore, ...]:
        """Every class that was judged, in the order of the annotation file."""

    @property
    def rules(self) -> Mapping[str, str]:
        """What a report line must say of how the numbers were made: rule -> choice."""

    @property
    def images(self) -> int:
        """How many images were judged."""

    @property
    def warnings(self) -> Mapping[str, int]:
        """What was odd in the input and how often; `warning_lines` spells it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionScores:
    """AP of boxes or masks; see `Scores`.

    Attributes:
        curves: precision and recall at every threshold, class, area and limit.
    """

    kind: str
    metrics: Mapping[str, float | None]
    per_class: tuple[ClassScore, ...]
    rules: Mapping[str, str]
    images: int
    curves: PrecisionRecall
    warnings: Mapping[str, int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class VOCScores:
    """AP of boxes at one overlap; see `Scores`."""

    metrics: Mapping[str, float | None]
    per_class: tuple[ClassScore, ...]
    rules: Mapping[str, str]
    images: int
    warnings: Mapping[str, int] = field(default_factory=Counter)
    kind: str = "voc"


@dataclass(frozen=True, slots=True, kw_only=True)
class CityscapesScores:
    """AP of masks by Cityscapes' rules; see `Scores`."""

    metrics: Mapping[str, float | None]
    per_class: tuple[ClassScore, ...]
    rules: Mapping[str, str]
    images: int
    warnings: Mapping[str, int] = field(default_factory=Counter)
    kind: str = "cityscapes"


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticScores:
    """mIoU and its kin; see `Scores`.

    Attributes:
        confusion: the pixels they were counted from.
    """

    metrics: Mapping[str, float | None]
    per_class: tuple[ClassScore, ...]
    rules: Mapping[str, str]
    images: int
    confusion: ConfusionMatrix
    warnings: Mapping[str, int] = field(default_factory=Counter)
    kind: str = "semantic"


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticScores:
    """PQ, SQ and RQ; see `Scores`.

    Attributes:
        quality: the matches they were counted from.
    """

    metrics: Mapping[str, float | None]
    per_class: tuple[ClassScore, ...]
    rules: Mapping[str, str]
    images: int
    quality: PanopticQuality
    warnings: Mapping[str, int] = field(default_factory=Counter)
    kind: str = "panoptic"


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShotScores:
    """mIoU and FB-IoU of one fold; see `Scores`. An image here is an episode."""

    metrics: Mapping[str, float | None]
    per_class: tuple[ClassScore, ...]
    rules: Mapping[str, str]
    images: int
    warnings: Mapping[str, int] = field(default_factory=Counter)
    kind: str = "few-shot"


def scores_json(scores: Scores) -> dict[str, Any]:
    """Everything but the counts, as plain JSON."""
    return {
        "kind": scores.kind,
        "images": scores.images,
        "rules": dict(scores.rules),
        "metrics": dict(scores.metrics),
        "per_class": [
            {
                "id": row.category.id,
                "name": row.category.name,
                "group": row.category.group,
                "is_thing": row.category.is_thing,
                **row.values,
            }
            for row in scores.per_class
        ],
        "warnings": dict(scores.warnings),
        "warning_texts": warning_lines(scores.warnings),
    }
