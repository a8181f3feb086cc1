"""open_clip's own VisionTransformer: any input size, dense tokens by the value path of the last block.

Every block but the last runs as in CLIP. The last one is read per cell: a token that attends to itself alone
keeps its place. That is MaskCLIP's value path (Zhou et al. 2022), here with the residual and the MLP, which
keep the tokens in the distribution the final norm and projection expect. The token map in front of the last
block is kept, with its class token, so that other readings of that block (SCLIP, ClearCLIP, NACLIP) can start
from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from ovperception.backbones.base import FeatureSpec
from ovperception.backbones.regions import as_rois, masked_mean

__all__ = ["ViTTrunk", "embed_tokens", "project", "resize_positions", "value_path"]

PositionMode = Literal["bicubic", "bilinear"]


def resize_positions(
    table: Tensor,
    trained: tuple[int, int],
    size: tuple[int, int],
    *,
    mode: PositionMode = "bicubic",
    antialias: bool = False,
) -> Tensor:
    """Resizes a positional embedding to another grid.

    Papers disagree on `antialias`, and the numbers do too, even when enlarging: MaskCLIP, CLIPSelf and
    CLIP-DINOiser go without, the loaders of timm and open_clip with.

    Args:
        table: (1 + h*w, C): class token, then the trained grid.
        trained: (h, w) of the table.
        size: (h, w) wanted.
        mode: Interpolation.
        antialias: As of `torch.nn.functional.interpolate`.

    Returns:
        (1 + size[0]*size[1], C); the table itself at the trained size.
    """
    if trained == size:
        return table
    grid = table[1:].float().reshape(1, *trained, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size, mode=mode, align_corners=False, antialias=antialias)
    return torch.cat([table[:1], grid.flatten(2)[0].T.to(table.dtype)])


def embed_tokens(
    visual: Any, images: Tensor, *, mode: PositionMode = "bicubic", antialias: bool = False
) -> tuple[Tensor, tuple[int, int]]:
    """Patches, class token, positions, first norm: (B, 3, H, W) -> (B, 1 + h*w, W), and (h, w)."""
    x = visual.conv1(images)
    size = (x.shape[-2], x.shape[-1])
    x = x.flatten(2).transpose(1, 2)
    head = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    positions = resize_positions(
        visual.positional_embedding, visual.grid_size, size, mode=mode, antialias=antialias
    )
    tokens: Tensor = visual.ln_pre(torch.cat([head, x], 1) + positions.to(x.dtype))
    return tokens, size


def value_path(block: Any, tokens: Tensor) -> Tensor:
    """A residual block in which every token of (..., W) attends to itself alone."""
    width = tokens.shape[-1]
    attention = block.attn
    bias = attention.in_proj_bias
    value = F.linear(
        block.ln_1(tokens), attention.in_proj_weight[-width:], None if bias is None else bias[-width:]
    )
    tokens = tokens + block.ls_1(attention.out_proj(value))
    updated: Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return updated


def project(visual: Any, tokens: Tensor) -> Tensor:
    """Final norm and projection: (..., W) -> (..., D)."""
    normed: Tensor = visual.ln_post(tokens)
    embedded: Tensor = normed @ visual.proj
    return embedded


class ViTTrunk:
    """The `vit` family: open_clip's own transformer, CLIPA's variants included.

    Regions: the mean of the last block's value-path tokens inside a mask or box (ROIAlign to one cell), then
    final norm and projection.

    Stages: ``block3``, ``block6``, ... are outputs at quarters of the depth, ``dense`` is the input of the
    last block. Beside the stages the maps hold ``cls``, its class token as (B, W, 1, 1).
    """

    family = "vit"
    dense_stage = "dense"
    region_stages: tuple[str, ...] = ("dense",)

    def __init__(
        self, visual: Any, *, position_mode: PositionMode = "bicubic", antialias: bool = False
    ) -> None:
        self.visual = visual
        self.position_mode: PositionMode = position_mode
        self.antialias = antialias
        self.image_size = int(visual.image_size[0])
        self._stride = int(visual.patch_size[0])
        depth = len(visual.transformer.resblocks)
        self._taps = {
            round(depth * quarter / 4): f"block{round(depth * quarter / 4)}" for quarter in (1, 2, 3)
        }
        self._taps = {index: name for index, name in self._taps.items() if 0 < index < depth}
        spec = FeatureSpec(channels=int(visual.conv1.out_channels), stride=self._stride)
        self.stages: Mapping[str, FeatureSpec] = {name: spec for name in (*self._taps.values(), "dense")}

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Token maps at the quarters of the depth, and what enters the last block."""
        tokens, size = embed_tokens(self.visual, images, mode=self.position_mode, antialias=self.antialias)
        maps = {}
        for index, block in enumerate(self.visual.transformer.resblocks[:-1], start=1):
            tokens = block(tokens)
            if index in self._taps:
                maps[self._taps[index]] = _as_map(tokens[:, 1:], size)
        maps["dense"] = _as_map(tokens[:, 1:], size)
        maps["cls"] = tokens[:, :1].transpose(1, 2).unsqueeze(-1)
        return maps

    def _final_tokens(self, maps: Mapping[str, Tensor]) -> Tensor:
        """(B, h, w, W) after the last block's value path."""
        return value_path(self.visual.transformer.resblocks[-1], maps["dense"].permute(0, 2, 3, 1))

    def embed_dense(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Value path, final norm and projection on every cell."""
        return project(self.visual, self._final_tokens(maps)).permute(0, 3, 1, 2)

    def embed_masks(self, maps: Mapping[str, Tensor], masks: Tensor) -> Tensor:
        """Final norm and projection of the mean token inside each mask; an empty mask has a mean of zero."""
        return project(self.visual, masked_mean(self._final_tokens(maps).permute(0, 3, 1, 2), masks))

    def embed_boxes(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Final norm and projection of the mean token inside each box."""
        tokens = self._final_tokens(maps).permute(0, 3, 1, 2)
        rois = as_rois(boxes, tokens.device)
        pooled = roi_align(
            tokens.float(), rois, 1, spatial_scale=1 / self._stride, sampling_ratio=0, aligned=True
        )
        return project(self.visual, pooled.flatten(1).to(tokens.dtype))


def _as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size)
