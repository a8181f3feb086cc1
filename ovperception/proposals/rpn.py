"""The region proposal network that RegionCLIP carries along, with a ResNet-50 of its own.

Sources: Ren et al. 2015 ("Faster R-CNN"); detectron2 `modeling/proposal_generator/{rpn,proposal_utils}.py`.
The checkpoints are RegionCLIP's, trained on the base classes of COCO (``c4``) or LVIS (``fpn``, and ``lsj``
with large-scale jitter).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from ovperception.backbones.base import Features
from ovperception.errors import InvalidParameter
from ovperception.proposals.anchors import RATIOS, cell_anchors, decode_deltas, grid_anchors
from ovperception.proposals.base import Proposals
from ovperception.proposals.resnet50 import FeaturePyramid, ResNet50

__all__ = ["OfflineRPN", "RPNSettings", "RPNVariant"]

RPNVariant = Literal["fpn", "c4", "lsj"]

_SIZES = (32, 64, 128, 256, 512)
_BGR_MEAN = (103.53, 116.28, 123.675)
"""Of detectron2's Caffe models, whose pixels go from 0 to 255; they are not divided by a deviation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RPNSettings:
    """What an offline RPN computes, besides its weights.

    Attributes:
        kind: how `build_proposer` finds it.
        variant: ``fpn`` reads five levels of a feature pyramid, ``lsj`` as well and has one more convolution,
            ``c4`` reads the single map of stride 16.
        nms_iou: of two boxes of one level that overlap more than this, the likelier stays.
        pre_nms_top_k: boxes of a level that go into suppression; None: 1000, for ``c4`` 6000.
        post_nms_top_k: boxes of an image that come out of it.
    """

    kind: Literal["rpn"] = "rpn"
    variant: RPNVariant = "fpn"
    nms_iou: float = 0.9
    pre_nms_top_k: int | None = None
    post_nms_top_k: int = 1000

    def __post_init__(self) -> None:
        """Refuse what no proposals can come of."""
        if self.kind != "rpn" or self.variant not in get_args(RPNVariant):
            raise InvalidParameter(
                "No RPN is of this variant",
                field="proposer.variant",
                expected=f"one of {', '.join(get_args(RPNVariant))}",
                got=self.variant,
            )
        if isinstance(self.nms_iou, bool | str) or not 0 <= self.nms_iou <= 1:
            raise InvalidParameter(
                "nms_iou is out of range",
                field="proposer.nms_iou",
                expected="a number from 0 to 1",
                got=self.nms_iou,
            )
        for name in ("pre_nms_top_k", "post_nms_top_k"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidParameter(
                    f"{name} is out of range", field=f"proposer.{name}", expected="1 or more", got=value
                )

    @property
    def candidates(self) -> int:
        """Boxes of a level that go into suppression."""
        if self.pre_nms_top_k is None:
            return 6000 if self.variant == "c4" else 1000
        return self.pre_nms_top_k

    def to_dict(self) -> dict[str, Any]:
        """In plain JSON types; `from_dict` gives it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            InvalidParameter: an unknown setting, or one out of its range.
        """
        known = tuple(f.name for f in fields(cls))
        if unknown := sorted(set(settings) - set(known)):
            raise InvalidParameter(
                "Unknown settings of a proposer",
                field="proposer",
                expected=", ".join(known),
                got=", ".join(unknown),
            )
        return cls(**settings)


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


class OfflineRPN(nn.Module):
    """Proposes boxes from pixels; of the CLIP it needs the image statistics alone.

    An image's proposals do not depend on what else is in its batch, up to the rounding of the convolutions.

    Args:
        settings: the variant and its numbers.
        mean: what `Features.images` were normalised with: mean per RGB channel, 0-1.
        std: likewise, their deviation.
    """

    def __init__(
        self, settings: RPNSettings, *, mean: tuple[float, float, float], std: tuple[float, float, float]
    ) -> None:
        super().__init__()
        self.settings = settings
        pyramid = settings.variant != "c4"
        self.trunk = ResNet50(stages=4 if pyramid else 3)
        self.pyramid = FeaturePyramid((256, 512, 1024, 2048)) if pyramid else None
        self.strides = (4, 8, 16, 32, 64) if pyramid else (16,)
        self.sizes = tuple((size,) for size in _SIZES) if pyramid else (_SIZES,)
        self.head = RPNHead(
            256 if pyramid else 1024,
            anchors=len(RATIOS) * len(self.sizes[0]),
            depth=2 if settings.variant == "lsj" else 1,
        )
        for name, values in (("mean", mean), ("std", std), ("bgr_mean", _BGR_MEAN)):
            self.register_buffer(f"_{name}", torch.tensor(values).view(3, 1, 1), persistent=False)
        for level, sizes in enumerate(self.sizes):
            self.register_buffer(f"_cells{level}", cell_anchors(sizes), persistent=False)

    @torch.no_grad()
    def propose(self, features: Features) -> list[Proposals]:
        """The proposals of each image, likeliest first, at most ``settings.post_nms_top_k``.

        Args:
            features: of B images of one size; only ``images`` is read.

        Returns:
            B times boxes (N, 4) within the image and of some area, and raw logits (N,); N may be 0.

        Raises:
            InvalidParameter: the features came without their pixels.
        """
        if features.images is None:
            raise InvalidParameter(
                "An RPN looks at pixels, and these features came without them",
                field="features.images",
                expected="the normalised network input, (B, 3, H, W)",
                mend="Give what `Backbone.features` returns, not a part of it",
            )
        images = features.images
        height, width = images.shape[-2:]
        outputs = [self.head(level) for level in self.levels(self.pixels(images))]
        return self.select(outputs, (height, width))

    def pixels(self, images: Tensor) -> Tensor:
        """The trunk's own input from the CLIP's.

        Args:
            images: (B, 3, H, W) RGB, normalised with the CLIP's statistics.

        Returns:
            (B, 3, H', W') float32: BGR, 0-255 less the mean. Images have whole numbers there, so rounding
            gives back the very pixels. With a pyramid, H' and W' are the next multiples of 32, zero beyond.
        """
        rgb = ((images.float() * self._mean_and_std[1] + self._mean_and_std[0]) * 255).round()
        bgr = rgb.flip(1) - self.get_buffer("_bgr_mean")
        if self.pyramid is None:
            return bgr
        height, width = images.shape[-2:]
        return F.pad(bgr, (0, -width % 32, 0, -height % 32))

    @property
    def _mean_and_std(self) -> tuple[Tensor, Tensor]:
        return self.get_buffer("_mean"), self.get_buffer("_std")

    def levels(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H', W') -> p2..p6 (B, 256, h, w), or res4 alone (B, 1024, h, w)."""
        maps = self.trunk(pixels)
        return [maps["res4"]] if self.pyramid is None else list(self.pyramid(list(maps.values())))

    def select(self, outputs: Sequence[tuple[Tensor, Tensor]], size: tuple[int, int]) -> list[Proposals]:
        """Decode, clip, suppress.

        Args:
            outputs: of `RPNHead`, level by level.
            size: (height, width) that boxes are clipped to.
        """
        boxes, scores, owners = [], [], []
        for number, (logits, deltas) in enumerate(outputs):
            cells = self.get_buffer(f"_cells{number}")
            anchors = grid_anchors(cells, (logits.shape[2], logits.shape[3]), self.strides[number])
            flat = logits.permute(0, 2, 3, 1).flatten(1)  # (B, h w A)
            apart = deltas.unflatten(1, (len(cells), 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)  # (B, h w A, 4)
            best, index = flat.topk(min(self.settings.candidates, flat.shape[1]))
            chosen = apart.gather(1, index[..., None].expand(-1, -1, 4))
            boxes.append(decode_deltas(anchors[index], chosen))
            scores.append(best)
            owners.append(torch.full_like(index[0], number))
        owner = torch.cat(owners)
        return [
            self._suppress(*image, owner, size)
            for image in zip(torch.cat(boxes, 1), torch.cat(scores, 1), strict=True)
        ]

    def _suppress(self, boxes: Tensor, scores: Tensor, level: Tensor, size: tuple[int, int]) -> Proposals:
        finite = boxes.isfinite().all(1) & scores.isfinite()
        height, width = size
        x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
        boxes = torch.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), dim=1)
        kept = finite & (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, scores, level = boxes[kept], scores[kept], level[kept]
        best = batched_nms(boxes, scores, level, self.settings.nms_iou)[: self.settings.post_nms_top_k]
        return Proposals(boxes=boxes[best], objectness=scores[best])
