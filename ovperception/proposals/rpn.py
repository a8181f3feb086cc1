"""The region proposal network that RegionCLIP carries along, with a ResNet-50 of its own.

Sources: Ren et al. 2015 ("Faster R-CNN"); detectron2 `modeling/proposal_generator/{rpn,proposal_utils}.py`.
The checkpoints are RegionCLIP's, trained on the base classes of COCO (``c4``) or LVIS (``fpn``, and ``lsj``
with large-scale jitter).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovperception.backbones.base import Features
from ovperception.errors import InvalidParameter
from ovperception.proposals.anchors import RATIOS, cell_anchors
from ovperception.proposals.base import Proposals
from ovperception.proposals.resnet50 import FeaturePyramid, ResNet50
from ovperception.proposals.rpn_head import RPNHead, flatten_outputs, select_proposals
from ovperception.proposals.settings import check_counts, check_overlap, read_settings

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
        check_overlap("nms_iou", self.nms_iou)
        if self.pre_nms_top_k is not None:
            check_counts(pre_nms_top_k=self.pre_nms_top_k)
        check_counts(post_nms_top_k=self.post_nms_top_k)

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
        return read_settings(cls, settings)


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
        levels = [
            flatten_outputs(logits, deltas, self.get_buffer(f"_cells{number}"), self.strides[number])
            for number, (logits, deltas) in enumerate(outputs)
        ]
        return select_proposals(
            levels,
            size,
            candidates=self.settings.candidates,
            nms_iou=self.settings.nms_iou,
            limit=self.settings.post_nms_top_k,
        )
