"""Answers: boxes, masks and maps as numpy arrays, in pixels of the presented image.

All sizes are ``(height, width)``; boxes are ``xyxy`` float32 pixels, half-open; the presented image is the
one after its EXIF orientation was applied.
"""

from ovperception.structures.detections import CocoResult, DetectionJSON, Detections, DetectionsJSON
from ovperception.structures.panoptic_map import (
    CocoPanoptic,
    CocoSegment,
    PanopticJSON,
    PanopticMap,
    Segment,
    SegmentJSON,
)
from ovperception.structures.semantic_map import SemanticJSON, SemanticMap

__all__ = [
    "CocoPanoptic",
    "CocoResult",
    "CocoSegment",
    "DetectionJSON",
    "Detections",
    "DetectionsJSON",
    "PanopticJSON",
    "PanopticMap",
    "Segment",
    "SegmentJSON",
    "SemanticJSON",
    "SemanticMap",
]
