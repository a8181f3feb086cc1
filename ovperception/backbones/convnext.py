"""timm ConvNeXt trunks inside open_clip: res2..res5, and CLIP's own head on whatever was pooled.

The head normalises after pooling, so a cell, a masked mean and the global mean all go through it alike.
Sources: open_clip `timm_model.py`; masked pooling, FC-CLIP (`fcclip/fcclip.py`, `MaskPooling`, and
`fcclip/modeling/backbone/clip.py`, `visual_prediction_forward`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import roi_align

from ovperception.backbones.base import FeatureSpec
from ovperception.backbones.fast_linear import quicken_mlp
from ovperception.backbones.regions import as_rois, masked_mean

__all__ = ["ConvNeXtTrunk", "convnext_maps", "head_embeddings"]


def convnext_maps(visual: Any, images: Tensor) -> dict[str, Tensor]:
    """Runs stem and stages.

    Args:
        visual: open_clip's TimmModel around a timm ConvNeXt.
        images: (B, 3, H, W) normalised; sizes floor at each stride.

    Returns:
        ``stem`` and ``res2`` (stride 4), ``res3``, ``res4``, ``res5``: (B, C, h, w).
    """
    trunk = visual.trunk
    # Its blocks normalise and mix channels last; so laid out they move no memory, and results stay the same.
    x = trunk.stem(images.contiguous(memory_format=torch.channels_last))
    maps = {"stem": x}
    for name, stage in zip(("res2", "res3", "res4", "res5"), trunk.stages, strict=True):
        x = stage(x)
        maps[name] = x
    maps["res5"] = trunk.norm_pre(x)
    return maps


def head_embeddings(visual: Any, pooled: Tensor) -> Tensor:
    """(N, C) pooled features -> (N, D): the trunk's norm, then CLIP's projection."""
    embedded: Tensor = visual.head(visual.trunk.forward_head(pooled[:, :, None, None]))
    return embedded


class ConvNeXtTrunk:
    """The `convnext` family: any timm ConvNeXt, a linear or MLP projection.

    Regions: the mean inside a mask (FC-CLIP) or a box (ROIAlign to one cell), then the head.
    """

    family = "convnext"
    dense_stage = "res5"
    region_stages: tuple[str, ...] = ("res5",)

    def __init__(self, visual: Any) -> None:
        self.visual = visual
        visual.trunk.to(memory_format=torch.channels_last)
        for stage in visual.trunk.stages:
            for block in stage.blocks:
                quicken_mlp(block.mlp)
        self.image_size = int(visual.image_size[0])
        channels = [info["num_chs"] for info in visual.trunk.feature_info]
        strides = [info["reduction"] for info in visual.trunk.feature_info]
        names = ("res2", "res3", "res4", "res5")
        pyramid = zip(names, channels, strides, strict=True)
        self.stages: Mapping[str, FeatureSpec] = {
            "stem": FeatureSpec(channels=channels[0], stride=strides[0]),
            **{name: FeatureSpec(channels=c, stride=s) for name, c, s in pyramid},
        }

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Stem and res2..res5."""
        return convnext_maps(self.visual, images)

    def embed_dense(self, maps: Mapping[str, Tensor]) -> Tensor:
        """The head on every cell of res5."""
        dense = maps["res5"]
        batch, _, height, width = dense.shape
        cells = dense.permute(0, 2, 3, 1).flatten(0, 2)
        return head_embeddings(self.visual, cells).reshape(batch, height, width, -1).permute(0, 3, 1, 2)

    def embed_masks(self, maps: Mapping[str, Tensor], masks: Tensor) -> Tensor:
        """The head on the mean of res5 inside each mask; an empty mask has a mean of zero."""
        pooled = masked_mean(maps["res5"], masks)
        embedded = head_embeddings(self.visual, pooled.flatten(0, 1))
        return embedded.reshape(*pooled.shape[:2], embedded.shape[-1])

    def embed_boxes(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """The head on the mean of res5 inside each box."""
        dense = maps["res5"].float()
        stride = self.stages["res5"].stride
        rois = as_rois(boxes, dense.device)
        pooled = roi_align(dense, rois, 1, spatial_scale=1 / stride, sampling_ratio=0, aligned=True)
        return head_embeddings(self.visual, pooled.flatten(1).to(maps["res5"].dtype))


def is_convnext(visual: Any) -> bool:
    """Whether open_clip's TimmModel holds a ConvNeXt with an average-pooling head."""
    trunk: Any = getattr(visual, "trunk", None)
    parts = ("stem", "stages", "norm_pre", "forward_head", "feature_info")
    if type(trunk).__name__ != "ConvNeXt" or not all(hasattr(trunk, part) for part in parts):
        return False
    return bool(trunk.head.global_pool.pool_type == "avg")
