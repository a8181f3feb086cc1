"""The evaluators and the published protocols. Import by name from it; never `import eval`."""

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
