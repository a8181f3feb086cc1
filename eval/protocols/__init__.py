"""The named protocols: how the field measures, as plain descriptions; and what it published under them.

``protocol("ov_coco")`` says which data, words, metric and rules a number is of; the runner does what it says
and `report_line` writes all of it beside the number.
"""

from eval.protocols.other_metric import METRIC_NAMES, with_metric
from eval.protocols.protocol import (
    AP,
    PQ,
    Background,
    EvaluationProtocol,
    FewShot,
    MeanIoU,
    Resolution,
    Window,
    groups_of,
)
from eval.protocols.published import Published, published
from eval.protocols.report_line import report_line
from eval.protocols.table import protocol, protocol_names, protocols

__all__ = [
    "AP",
    "METRIC_NAMES",
    "PQ",
    "Background",
    "EvaluationProtocol",
    "FewShot",
    "MeanIoU",
    "Published",
    "Resolution",
    "Window",
    "groups_of",
    "protocol",
    "protocol_names",
    "protocols",
    "published",
    "report_line",
    "with_metric",
]
