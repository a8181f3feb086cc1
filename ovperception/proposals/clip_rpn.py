"""A proposal network on the maps of the frozen CLIP itself: no trunk of its own, a few hundred boxes.

RegionCLIP brings a second ResNet-50 to propose boxes. Here a pyramid of a few convolutions reads what the
CLIP has computed anyway. Trained on boxes of base classes, it must propose things of other classes too, so
its objectness learns how well a box fits, not which class is in it.

Sources: Ren et al. 2015 ("Faster R-CNN") for anchors and deltas; Lin et al. 2017 ("Feature Pyramid
Networks"); Rezatofighi et al. 2019 (generalised IoU) for the box loss; Li et al. 2020 ("Generalized Focal
Loss", equation 5) for the objectness, whose target is the IoU of the predicted box; Kim et al. 2021
("Learning Open-World Object Proposals without Learning to Classify") for why: such an objectness carries over
to unseen classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, generalized_box_iou_loss

from ovperception.errors import InvalidParameter
from ovperception.proposals.anchors import RATIOS, cell_anchors, decode_deltas
from ovperception.proposals.resnet50 import FeaturePyramid
from ovperception.proposals.rpn_head import AnchorOutputs, RPNHead, flatten_outputs, select_proposals
from ovperception.proposals.settings import check_counts, check_overlap, read_settings

if TYPE_CHECKING:
    from ovperception.backbones.base import BackboneSpec, Features
    from ovperception.proposals.base import Proposals

__all__ = ["ClipRPN", "ClipRPNSettings", "assign_anchors"]

_PRIOR = 0.01
"""What every anchor's objectness begins at: nearly all of them are ground (Lin et al. 2017, "Focal Loss")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRPNSettings:
    """What a proposer on CLIP's maps computes, besides its weights.

    Attributes:
        kind: how `build_proposer` finds it.
        stages: of the backbone, finest first, each of twice the stride of the one before; the pyramid has one
            level more, of twice the stride of the last.
        width: channels of the pyramid.
        depth: 3x3 convolutions before the outputs.
        scales: side of the square anchors of a level, in strides.
        nms_iou: of two boxes that overlap more than this, the likelier stays.
        pre_nms_top_k: boxes of a level that go into suppression.
        post_nms_top_k: boxes of an image that come out of it; each costs its region's embedding.
        positive_iou: an anchor that overlaps an object this much shall find it.
        negative_iou: an anchor that overlaps every object less than this shall find nothing; between the two
            nothing is asked of it.
        anchors_per_object: the best of an object's anchors shall find it however little they overlap.
        box_weight: of the box loss beside the objectness.
    """

    kind: Literal["clip-rpn"] = "clip-rpn"
    stages: tuple[str, ...] = ("res3", "res4", "res5")
    width: int = 128
    depth: int = 1
    scales: tuple[float, ...] = (3.0, 4.24)
    nms_iou: float = 0.7
    pre_nms_top_k: int = 500
    post_nms_top_k: int = 200
    positive_iou: float = 0.6
    negative_iou: float = 0.4
    anchors_per_object: int = 4
    box_weight: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what no proposals can come of."""
        if not self.stages or not self.scales or not all(scale > 0 for scale in self.scales):
            raise InvalidParameter(
                "There is nothing to propose on",
                field="proposer",
                expected="stages of the backbone and positive scales",
                got=f"stages {self.stages}, scales {self.scales}",
            )
        for name in ("nms_iou", "positive_iou", "negative_iou"):
            check_overlap(name, getattr(self, name))
        check_counts(
            width=self.width,
            depth=self.depth,
            pre_nms_top_k=self.pre_nms_top_k,
            post_nms_top_k=self.post_nms_top_k,
            anchors_per_object=self.anchors_per_object,
        )

    def to_dict(self) -> dict[str, Any]:
        """In plain JSON types; `from_dict` gives it back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            InvalidParameter: an unknown setting, or one out of its range.
        """
        return read_settings(cls, settings)


class ClipRPN(nn.Module):
    """Proposes boxes from the multi-scale maps of a frozen CLIP.

    Args:
        settings: stages, sizes and counts.
        backbone: whose maps it reads.

    Raises:
        InvalidParameter: the backbone has no such stages, or they are no pyramid.
    """

    def __init__(self, settings: ClipRPNSettings, backbone: BackboneSpec) -> None:
        super().__init__()
        self.settings = settings
        known = backbone.stages
        strides = [known[stage].stride for stage in settings.stages if stage in known]
        if len(strides) < len(settings.stages) or any(b != 2 * a for a, b in itertools.pairwise(strides)):
            raise InvalidParameter(
                "A proposer on CLIP's maps needs stages that halve one another",
                field="proposer.stages",
                expected=", ".join(f"{name} (stride {spec.stride})" for name, spec in known.items()),
                got=", ".join(settings.stages),
                mend='Name such stages, or take a proposer of kind "rpn", which looks at pixels',
            )
        self.strides = (*strides, 2 * strides[-1])
        channels = [known[stage].channels for stage in settings.stages]
        self.pyramid = FeaturePyramid(channels, settings.width, norm_groups=math.gcd(settings.width, 32))
        anchors = len(RATIOS) * len(settings.scales)
        self.head = RPNHead(settings.width, anchors=anchors, depth=settings.depth)
        for level, stride in enumerate(self.strides):
            cells = cell_anchors([scale * stride for scale in settings.scales])
            self.register_buffer(f"_cells{level}", cells, persistent=False)
        for convolution in (*self.head.hidden, self.head.objectness, self.head.deltas):
            nn.init.normal_(convolution.weight, std=0.01)  # detectron2 `StandardRPNHead`
            nn.init.zeros_(convolution.bias)
        nn.init.constant_(cast("Tensor", self.head.objectness.bias), math.log(_PRIOR / (1 - _PRIOR)))

    @torch.no_grad()
    def propose(self, features: Features) -> list[Proposals]:
        """The proposals of each image, likeliest first, at most ``settings.post_nms_top_k``.

        Args:
            features: maps of B images of one size.

        Returns:
            B times boxes (N, 4) within the image and of some area, and raw logits (N,).
        """
        return select_proposals(
            self.outputs(features),
            features.image_size,
            candidates=self.settings.pre_nms_top_k,
            nms_iou=self.settings.nms_iou,
            limit=self.settings.post_nms_top_k,
            across_levels=True,
        )

    def outputs(self, features: Features) -> list[AnchorOutputs]:
        """What the head says of every anchor, level by level, finest first."""
        dtype = self.head.objectness.weight.dtype
        levels = self.pyramid([features[stage].to(dtype) for stage in self.settings.stages])
        outputs: list[tuple[Tensor, Tensor]] = [self.head(level) for level in levels]
        return [
            flatten_outputs(logits, deltas, self.get_buffer(f"_cells{number}"), self.strides[number])
            for number, (logits, deltas) in enumerate(outputs)
        ]

    def losses(self, features: Features, boxes: Sequence[Tensor]) -> dict[str, Tensor]:
        """Objectness and box loss of a batch, over all anchors.

        Args:
            features: maps of B images.
            boxes: B tensors (N_i, 4): the objects, xyxy in pixels of the network input.

        Returns:
            ``objectness`` and ``proposal_box``, each a sum divided by the number of anchors that shall find
            an object.
        """
        levels = self.outputs(features)
        anchors = torch.cat([level.anchors for level in levels])
        logits = torch.cat([level.logits for level in levels], dim=1).float()
        deltas = torch.cat([level.deltas for level in levels], dim=1).float()
        settings = self.settings
        objectness, box, positives = logits.sum() * 0, deltas.sum() * 0, 0
        for image, truth in enumerate(boxes):
            owner = assign_anchors(
                anchors,
                truth,
                positive_iou=settings.positive_iou,
                negative_iou=settings.negative_iou,
                per_object=settings.anchors_per_object,
            )
            found = owner >= 0
            wanted = truth[owner[found]]
            predicted = decode_deltas(anchors[found], deltas[image, found])
            quality = torch.zeros_like(logits[image])
            quality[found] = _paired_iou(predicted.detach(), wanted)
            asked = owner != IGNORED
            objectness = objectness + _quality_focal(logits[image, asked], quality[asked]).sum()
            box = box + generalized_box_iou_loss(predicted, wanted, reduction="sum")
            positives += int(found.sum())
        count = max(positives, 1)
        return {"objectness": objectness / count, "proposal_box": settings.box_weight * box / count}


NOTHING, IGNORED = -1, -2


@torch.no_grad()
def assign_anchors(
    anchors: Tensor, boxes: Tensor, *, positive_iou: float, negative_iou: float, per_object: int
) -> Tensor:
    """Which object each anchor shall find.

    Args:
        anchors: (A, 4) xyxy.
        boxes: (N, 4) xyxy.
        positive_iou: least overlap with its best object.
        negative_iou: below it an anchor shall find nothing.
        per_object: as many anchors that overlap an object most shall find it, however little that is.

    Returns:
        (A,) int64: index of the object, `NOTHING`, or `IGNORED` in between.
    """
    owner = torch.full((len(anchors),), NOTHING, dtype=torch.long, device=anchors.device)
    if not len(boxes):
        return owner
    overlap = box_iou(boxes, anchors)  # (N, A)
    best, index = overlap.max(dim=0)
    owner[best >= negative_iou] = IGNORED
    owner = torch.where(best >= positive_iou, index, owner)
    values, chosen = overlap.topk(min(per_object, len(anchors)), dim=1)
    objects = torch.arange(len(boxes), device=anchors.device)[:, None].expand_as(chosen)
    # The closest pairs are written last, so that an anchor wanted by two goes to the closer one.
    order = values.flatten().argsort()
    order = order[values.flatten()[order] > 0]
    owner[chosen.flatten()[order]] = objects.flatten()[order]
    return owner


def _paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4) and (N, 4) xyxy -> (N,)."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    return shared / union.clamp(min=1e-6)


def _quality_focal(logits: Tensor, quality: Tensor) -> Tensor:
    """Cross entropy towards a quality of 0-1, weighted by the squared distance from it."""
    entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (logits.sigmoid() - quality).square() * entropy
