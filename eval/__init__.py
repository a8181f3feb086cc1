"""The evaluators and the published protocols. Import by name from it; never `import eval`."""

from eval.detection import AveragePrecision, average_precision
from eval.panoptic_quality import PanopticQuality, PanopticSegment, Quality
from eval.scenes import MEASURES, SceneEvaluation, evaluate_scenes
from eval.semantic import ConfusionMatrix

__all__ = [
    "MEASURES",
    "AveragePrecision",
    "ConfusionMatrix",
    "PanopticQuality",
    "PanopticSegment",
    "Quality",
    "SceneEvaluation",
    "average_precision",
    "evaluate_scenes",
]
