"""What every proposal network ends in: a head over the levels of a pyramid, and the best of its boxes.

Sources: Ren et al. 2015 ("Faster R-CNN"); detectron2 `modeling/proposal_generator/{rpn,proposal_utils}.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from ovperception.proposals.anchors import decode_deltas, grid_anchors
from ovperception.proposals.base import Proposals

__all__ = ["AnchorOutputs", "RPNHead", "flatten_outputs", "select_proposals"]


class RPNHead(nn.Module):
    """Objectness and box differences of every anchor of every level, by the same convolutions.

    Args:
        channels: of the levels.
        anchors: A, anchors a cell.
        depth: 3x3 convolutions before the two outputs.
    """

    def __init__(self, channels: int, *, anchors: int, depth: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors, 1)

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> (B, A, h, w) logits and (B, 4 A, h, w) dx, dy, dw, dh of each anchor."""
        for convolution in self.hidden:
            level = F.relu(convolution(level))
        return self.objectness(level), self.deltas(level)


@dataclass(frozen=True)
class AnchorOutputs:
    """One level's outputs beside its anchors, N = h w A.

    Attributes:
        anchors: (N, 4) xyxy pixels.
        logits: (B, N).
        deltas: (B, N, 4).
    """

    anchors: Tensor
    logits: Tensor
    deltas: Tensor


def flatten_outputs(logits: Tensor, deltas: Tensor, cells: Tensor, stride: int) -> AnchorOutputs:
    """Put the outputs of `RPNHead` on one level into the order of its anchors.

    Args:
        logits: (B, A, h, w).
        deltas: (B, 4 A, h, w).
        cells: (A, 4) of `cell_anchors`.
        stride: pixels a cell.
    """
    return AnchorOutputs(
        anchors=grid_anchors(cells, (logits.shape[2], logits.shape[3]), stride),
        logits=logits.permute(0, 2, 3, 1).flatten(1),
        deltas=deltas.unflatten(1, (len(cells), 4)).permute(0, 3, 4, 1, 2).flatten(1, 3),
    )


def select_proposals(
    levels: Sequence[AnchorOutputs],
    size: tuple[int, int],
    *,
    candidates: int,
    nms_iou: float,
    limit: int,
    across_levels: bool = False,
) -> list[Proposals]:
    """Decode, clip, suppress.

    Args:
        levels: of one pyramid.
        size: (height, width) that boxes are clipped to.
        candidates: boxes of a level that go into suppression.
        nms_iou: of two boxes that overlap more than this, the likelier stays.
        limit: boxes of an image that come out of it.
        across_levels: whether boxes of different levels suppress each other, too.

    Returns:
        B times boxes within the image and of some area, likeliest first.
    """
    boxes, scores, owners = [], [], []
    for number, level in enumerate(levels):
        best, index = level.logits.topk(min(candidates, level.logits.shape[1]))
        chosen = level.deltas.gather(1, index[..., None].expand(-1, -1, 4))
        boxes.append(decode_deltas(level.anchors[index], chosen))
        scores.append(best)
        owners.append(torch.full_like(index[0], 0 if across_levels else number))
    owner = torch.cat(owners)
    return [
        _suppressed(*image, owner, size, nms_iou, limit)
        for image in zip(torch.cat(boxes, 1), torch.cat(scores, 1), strict=True)
    ]


def _suppressed(
    boxes: Tensor, scores: Tensor, level: Tensor, size: tuple[int, int], nms_iou: float, limit: int
) -> Proposals:
    finite = boxes.isfinite().all(1) & scores.isfinite()
    height, width = size
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    boxes = torch.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), dim=1)
    kept = finite & (boxes[:, 2:] > boxes[:, :2]).all(1)
    boxes, scores, level = boxes[kept], scores[kept], level[kept]
    best = batched_nms(boxes, scores, level, nms_iou)[:limit]
    return Proposals(boxes=boxes[best], objectness=scores[best])
