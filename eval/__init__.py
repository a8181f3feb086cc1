"""The evaluators and the published protocols. Import by name from it; never `import eval`.

Scoring files needs no model: what loads torch is loaded when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from eval.metrics import (
    ConfusionMatrix,
    PanopticQuality,
    PanopticSegment,
    PrecisionRecall,
    Quality,
    score_coco,
    score_lvis,
    score_semantic,
)

if TYPE_CHECKING:
    from eval.scenes import MEASURES, SceneEvaluation, evaluate_scenes

__all__ = [
    "MEASURES",
    "ConfusionMatrix",
    "PanopticQuality",
    "PanopticSegment",
    "PrecisionRecall",
    "Quality",
    "SceneEvaluation",
    "evaluate_scenes",
    "score_coco",
    "score_lvis",
    "score_semantic",
]


def __getattr__(name: str) -> Any:
    if name in ("MEASURES", "SceneEvaluation", "evaluate_scenes"):
        from eval import scenes

        return getattr(scenes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
