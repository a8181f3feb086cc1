"""The five configurations that RegionCLIP was published with, as one table.

Source: microsoft/RegionCLIP, `configs/{COCO,LVIS}-InstanceSegmentation/CLIP_fast_rcnn_*` and the test scripts
that override them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ovperception.head import ObjectnessRule, Suppression

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One published configuration.

    Attributes:
        score_threshold: Scores must be above it.
        given_boxes_score_threshold: The same where boxes are given, as in evaluation by ground truth.
        nms_iou_threshold: Overlap above which the worse of two boxes of a class goes (hard suppression only).
        max_detections: Boxes kept of an image.
        objectness: The rule for the proposals' objectness. Given boxes have none, so no rule either.
        report: Which score is told.
        suppression: Hard, or soft as the scripts of the fine-tuned models say.
        box_deltas: Whether proposals are moved.
        masks: Whether the published model of this configuration has a mask head.
        proposal_nms_iou: Overlap above which proposals suppress each other.
        proposer: Variant of the offline RPN.
    """

    score_threshold: float
    given_boxes_score_threshold: float
    nms_iou_threshold: float
    max_detections: int
    objectness: ObjectnessRule
    report: Literal["rank", "class"] = "rank"
    suppression: Suppression = "hard"
    box_deltas: bool = False
    masks: bool = False
    proposal_nms_iou: float
    proposer: Literal["fpn", "c4", "lsj"]

    def head_settings(self) -> dict[str, Any]:
        """The fields of `RegionCLIPConfig` that the preset decides."""
        return {
            "box_deltas": self.box_deltas,
            "masks": self.masks,
            "objectness": self.objectness,
            "report": self.report,
            "suppression": self.suppression,
        }

    def proposer_settings(self) -> dict[str, Any]:
        """The offline RPN, as `ovperception.proposals.build_proposer` takes it."""
        return {"kind": "rpn", "variant": self.proposer, "nms_iou": self.proposal_nms_iou}

    def defaults(self) -> dict[str, float]:
        """`ModelCard.defaults`: what a question that says nothing gets."""
        return {
            "score_threshold": self.score_threshold,
            "nms_iou_threshold": self.nms_iou_threshold,
            "max_detections": self.max_detections,
        }


PRESETS: Mapping[str, Preset] = {
    "coco_zero_shot": Preset(
        score_threshold=0.001,
        given_boxes_score_threshold=0.001,
        nms_iou_threshold=0.5,
        max_detections=100,
        objectness="sqrt_raw",  # by the script that evaluates with proposals
        proposal_nms_iou=0.9,
        proposer="fpn",
    ),
    "lvis_zero_shot": Preset(
        score_threshold=0.02,
        given_boxes_score_threshold=0.0001,
        nms_iou_threshold=0.5,
        max_detections=300,
        objectness="sqrt_raw",
        proposal_nms_iou=0.9,
        proposer="fpn",
    ),
    "custom_images": Preset(
        score_threshold=0.02,
        given_boxes_score_threshold=0.02,
        nms_iou_threshold=0.3,
        max_detections=300,
        objectness="sqrt_raw",
        report="class",
        proposal_nms_iou=0.9,
        proposer="fpn",
    ),
    "coco_finetuned": Preset(
        score_threshold=0.001,
        given_boxes_score_threshold=0.001,
        nms_iou_threshold=0.5,
        max_detections=100,
        objectness="none",
        suppression="soft",
        box_deltas=True,
        proposal_nms_iou=0.7,
        proposer="c4",
    ),
    "lvis_finetuned": Preset(
        score_threshold=0.02,
        given_boxes_score_threshold=0.02,
        nms_iou_threshold=0.5,
        max_detections=300,
        objectness="sqrt_raw",
        suppression="soft",
        box_deltas=True,
        masks=True,
        proposal_nms_iou=0.7,
        proposer="lsj",
    ),
}
"""Name -> configuration."""
