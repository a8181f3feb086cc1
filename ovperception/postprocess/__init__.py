"""From scores on a network's grid to answers in pixels of the presented image; shared by all heads.

Only what is asked is computed, and only where something is: maps tile by tile with the masks that matter
there, instances inside their own boxes. Nothing of the size "queries times pixels" is ever made.
"""

from ovperception.postprocess.box_suppression import boxes, draft_boxes, soft_nms
from ovperception.postprocess.fragments import drop_fragments
from ovperception.postprocess.instance_masks import draft_instances, instances, mask_boxes
from ovperception.postprocess.panoptic_map import panoptic
from ovperception.postprocess.semantic_map import semantic

__all__ = [
    "boxes",
    "draft_boxes",
    "draft_instances",
    "drop_fragments",
    "instances",
    "mask_boxes",
    "panoptic",
    "semantic",
    "soft_nms",
]
