"""The pixel decoder of Mask2Former: coarse stages attend to each other, a small pyramid refines the result.

Source: arXiv:2112.01527, section 3.3; the attention is that of Deformable DETR.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.fcclip.config import FCCLIPConfig
from heads.fcclip.deformable_attention import DeformableAttention, Shapes
from heads.fcclip.position import reference_points, sine_encoding

__all__ = ["PixelDecoder"]

_GROUPS = 32


class PixelDecoder(nn.Module):
    """Backbone stages in; mask features at the finest stride and one refined map a level out.

    In float32: the sampling positions do not survive half precision. Where it is trained with products in
    half precision, those that make no position follow.
    """

    def __init__(self, config: FCCLIPConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        pyramid = len(config.stages) - config.levels
        self.level_stages = config.stages[pyramid:][::-1]  # coarsest first
        self.pyramid_stages = config.stages[:pyramid][::-1]
        channels = dict(zip(config.stages, config.stage_channels, strict=True))
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels[stage], dim, 1), nn.GroupNorm(_GROUPS, dim))
            for stage in self.level_stages
        )
        self.level_embeddings = nn.Parameter(torch.empty(config.levels, dim))
        self.layers = nn.ModuleList(DeformableLayer(config) for _ in range(config.encoder_layers))
        self.pyramid = nn.ModuleList(PyramidStep(channels[stage], dim) for stage in self.pyramid_stages)
        self.mask_features = nn.Conv2d(dim, config.mask_dim, 1)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        nn.init.normal_(self.level_embeddings)
        for projection in self.projections:
            assert isinstance(projection, nn.Sequential)
            conv = projection[0]
            assert isinstance(conv, nn.Conv2d)
            nn.init.xavier_uniform_(conv.weight)
            _zero(conv.bias)
        nn.init.kaiming_uniform_(self.mask_features.weight, a=1)
        _zero(self.mask_features.bias)

    def forward(self, maps: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Refine the maps of a batch.

        Args:
            maps: stage name -> (B, C, h, w).

        Returns:
            Mask features (B, mask_dim, h, w) at the finest stage, and the levels (B, dim, h, w), coarsest
            first.
        """
        device = maps[self.level_stages[0]].device.type
        mixed = torch.is_grad_enabled() and torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=mixed):
            taken = maps if mixed else {stage: m.float() for stage, m in maps.items()}
            projected = [
                project(taken[stage]).float()
                for stage, project in zip(self.level_stages, self.projections, strict=True)
            ]
            levels = self._attend(projected)
            finest = levels[-1]
            for stage, step in zip(self.pyramid_stages, self.pyramid, strict=True):
                finest = step(taken[stage], finest)
            return self.mask_features(finest), levels

    def _attend(self, maps: list[Tensor]) -> list[Tensor]:
        shapes = [(int(m.shape[-2]), int(m.shape[-1])) for m in maps]
        device, dim = maps[0].device, maps[0].shape[1]
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)  # (B, S, dim)
        positions = torch.cat(
            [
                sine_encoding(height, width, dim, device) + self.level_embeddings[level]
                for level, (height, width) in enumerate(shapes)
            ],
            dim=1,
        )
        reference = reference_points(shapes, device)
        for layer in self.layers:
            tokens = layer(tokens, positions, reference, shapes)
        pieces = tokens.split([h * w for h, w in shapes], dim=1)
        return [
            piece.transpose(1, 2).unflatten(2, shape) for piece, shape in zip(pieces, shapes, strict=True)
        ]


class DeformableLayer(nn.Module):
    """Deformable attention and a feed-forward net, each added and then normalised."""

    def __init__(self, config: FCCLIPConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.attention = DeformableAttention(dim, config.attention_heads, config.levels, config.points)
        self.attention_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, config.encoder_ffn)
        self.contract = nn.Linear(config.encoder_ffn, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        for linear in (self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, tokens: Tensor, positions: Tensor, reference: Tensor, shapes: Shapes) -> Tensor:
        """(B, S, dim) -> (B, S, dim)."""
        tokens = self.attention_norm(tokens + self.attention(tokens, positions, reference, shapes))
        hidden = F.relu(self.expand(tokens), inplace=True)
        return self.ffn_norm(tokens + self.contract(hidden))  # type: ignore[no-any-return]


class PyramidStep(nn.Module):
    """Merge a finer backbone stage into the map below it."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(channels, dim, 1, bias=False)
        self.lateral_norm = nn.GroupNorm(_GROUPS, dim)
        self.smooth = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.smooth_norm = nn.GroupNorm(_GROUPS, dim)
        for conv in (self.lateral, self.smooth):
            nn.init.kaiming_uniform_(conv.weight, a=1)

    def forward(self, finer: Tensor, coarser: Tensor) -> Tensor:
        """(B, channels, h, w) and (B, dim, h', w') -> (B, dim, h, w)."""
        merged = self.lateral_norm(self.lateral(finer))
        merged = merged + F.interpolate(coarser, size=merged.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(self.smooth_norm(self.smooth(merged)))


def _zero(bias: Tensor | None) -> None:
    assert bias is not None
    nn.init.zeros_(bias)
