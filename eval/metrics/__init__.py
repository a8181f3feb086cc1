"""The numbers the field publishes, from files or from memory, to the last digit of the reference tools.

Detection, from two files (or their content)::

    score_coco(truth, results, iou="bbox" | "segm" | "boundary", groups=..., engine=...)  -> DetectionScores
    score_lvis(truth, results, iou=..., fixed=False, image_ids=minival)                   -> DetectionScores

Label maps and panoptic maps, image by image with memory that does not grow, in any number of processes::

    confusion = ConfusionMatrix(K); confusion.add(truth, predicted, ignore_label=255)
    score_semantic(confusion, categories, rule="detectron2" | "mmseg" | "sceneparsing")   -> SemanticScores
    quality = PanopticQuality(categories); quality.add(ids, segments, ids, segments)
    quality.scores()                                                                      -> PanopticScores
    episodes = FewShotIoU(categories); episodes.add(category_id, truth, predicted)
    episodes.scores()                                                                     -> FewShotScores
    edges = BoundaryIoU(K); edges.add(truth, predicted); edges.mean()                     -> float

`score_voc` is PASCAL VOC's AP, by 11 points or by area; `score_cityscapes` that of Cityscapes' own script,
whose files `cityscapes_truth` and `cityscapes_results` read. Counts of several processes are added: ``a + b``
or ``a.merge(b)``; ``to_arrays`` and ``from_arrays`` carry them across. Files of others are read by
`score_panoptic_files` and `score_label_files`.

All answers share the fields of `Scores` (kind, metrics, per_class, rules, images, warnings), and
`scores_json` writes them. A metric is 0-1, or None where nothing can be said, never -1 or NaN. Bad input is a
typed error; what is odd but harmless is counted in ``warnings``, which `warning_lines` spells out.
"""

from eval.metrics.ap_engine import ENGINES, APEngine, APTask, EngineName, IoUKind, ap_engine
from eval.metrics.cityscapes_ap import score_cityscapes
from eval.metrics.cityscapes_files import cityscapes_results, cityscapes_truth, cityscapes_void
from eval.metrics.confusion import ConfusionMatrix
from eval.metrics.detection import COCO_LIMITS, score_coco, score_lvis
from eval.metrics.few_shot import FewShotIoU
from eval.metrics.label_files import score_label_files
from eval.metrics.label_images import LabelCoding
from eval.metrics.panoptic_files import PanopticFiles, read_panoptic_files, score_panoptic_files
from eval.metrics.panoptic_quality import PanopticQuality, PanopticSegment, Quality, Tally
from eval.metrics.pascal_voc import VOCCurve, score_voc, voc_ap
from eval.metrics.precision_recall import IOU_THRESHOLDS, RECALL_POINTS, PrecisionRecall
from eval.metrics.scores import (
    Category,
    CityscapesScores,
    ClassScore,
    DetectionScores,
    FewShotScores,
    PanopticScores,
    Scores,
    SemanticScores,
    VOCScores,
    scores_json,
)
from eval.metrics.semantic import AVERAGING_RULES, AveragingRule, iou_per_class, miou, score_semantic
from eval.metrics.semantic_boundary import BoundaryIoU, BoundaryRule, with_boundary
from eval.metrics.warning_texts import WARNINGS, warning_lines

__all__ = [
    "AVERAGING_RULES",
    "COCO_LIMITS",
    "ENGINES",
    "IOU_THRESHOLDS",
    "RECALL_POINTS",
    "WARNINGS",
    "APEngine",
    "APTask",
    "AveragingRule",
    "BoundaryIoU",
    "BoundaryRule",
    "Category",
    "CityscapesScores",
    "ClassScore",
    "ConfusionMatrix",
    "DetectionScores",
    "EngineName",
    "FewShotIoU",
    "FewShotScores",
    "IoUKind",
    "LabelCoding",
    "PanopticFiles",
    "PanopticQuality",
    "PanopticScores",
    "PanopticSegment",
    "PrecisionRecall",
    "Quality",
    "Scores",
    "SemanticScores",
    "Tally",
    "VOCCurve",
    "VOCScores",
    "ap_engine",
    "cityscapes_results",
    "cityscapes_truth",
    "cityscapes_void",
    "iou_per_class",
    "miou",
    "read_panoptic_files",
    "score_cityscapes",
    "score_coco",
    "score_label_files",
    "score_lvis",
    "score_panoptic_files",
    "score_semantic",
    "score_voc",
    "scores_json",
    "voc_ap",
    "warning_lines",
    "with_boundary",
]
