"""Every measure of the procedural world at once: what ``ovp eval --data scenes`` does without a protocol."""

from eval.scenes.measuring import evaluate_scenes, measure_scenes
from eval.scenes.settings import MEASURES, Measure, Metrics, SceneEvaluation

__all__ = ["MEASURES", "Measure", "Metrics", "SceneEvaluation", "evaluate_scenes", "measure_scenes"]
