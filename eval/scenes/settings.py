"""What is measured on the procedural world, and on which of its scenes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ovperception.datasets.scenes import SPLITS, Split, scene_seed
from ovperception.datasets.scenes.compose import MIN_SCENE_SIDE
from ovperception.datasets.scenes.vocabulary import Part
from ovperception.errors import InvalidParameter

__all__ = ["MEASURES", "Measure", "Metrics", "SceneEvaluation"]

Measure = Literal["box", "semantic", "panoptic", "region", "crop"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Metrics = dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneEvaluation:
    """What to measure on.

    Attributes:
        split: "train", "val" or "test".
        images: how many scenes.
        first: index of the first one.
        size: side of the square scenes in pixels.
        words: which classes are asked for and judged; the field's number is "all".
        only: what to measure; None for all that the model can answer.
        crops_per_class: drawn crops of each thing.
        workers: processes that draw scenes; with 1 they are drawn between the questions. More need a script
            with a main guard.
    """

    split: Split = "val"
    images: int = 500
    first: int = 0
    size: int = 512
    words: Part = "all"
    only: tuple[Measure, ...] | None = None
    crops_per_class: int = 3
    workers: int = 1

    def __post_init__(self) -> None:
        """Checks the settings before anything is drawn.

        Raises:
            InvalidParameter: one of them is impossible.
        """
        for name, value, known in (("split", self.split, SPLITS), ("words", self.words, get_args(Part))):
            if value not in known:
                raise InvalidParameter(
                    f"This {name} is not known", field=name, expected=f"one of {', '.join(known)}", got=value
                )
        for name, count, least in (
            ("images", self.images, 1),
            ("size", self.size, MIN_SCENE_SIDE),
            ("crops_per_class", self.crops_per_class, 1),
            ("workers", self.workers, 1),
        ):
            if count < least:
                raise InvalidParameter(
                    f"{name} is too small", field=name, expected=f"at least {least}", got=count
                )
        unknown = [name for name in self.only or () if name not in MEASURES]
        if unknown or (self.only is not None and not self.only):
            raise InvalidParameter(
                "There is no such measure",
                field="only",
                expected=f"some of {', '.join(MEASURES)}",
                got=", ".join(unknown) or "none",
            )
        scene_seed(self.split, self.first)
        scene_seed(self.split, self.first + self.images - 1)
