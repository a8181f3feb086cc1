"""The image trunk of the published models: a plain vision transformer at any size (Dosovitskiy et al. 2021).

Its parameters are called as timm calls them, but for ``patch_embed``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.lseg.config import TrunkConfig
from ovperception.backbones.fast_linear import FastLinear
from ovperception.backbones.vit import resize_positions

__all__ = ["VisionTransformer"]

_EPS = 1e-6


class Attention(nn.Module):
    """Every token looks at every token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = FastLinear(nn.Linear(width, 3 * width))
        self.proj = FastLinear(nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        parts = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, C / heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value)  # (B, heads, N, C / heads)
        out: Tensor = self.proj(seen.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Two layers with a GELU between them, where it is four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = FastLinear(nn.Linear(width, 4 * width), gelu=True)
        self.fc2 = FastLinear(nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        out: Tensor = self.fc2(self.fc1(tokens))
        return out


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = MLP(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class VisionTransformer(nn.Module):
    """Images to the tokens of four blocks, before any final norm.

    Args:
        config: Sizes.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        cells = config.grid[0] * config.grid[1]
        self.patch_embed = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + cells, config.width) * 0.02)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))

    def forward(self, images: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """(B, 3, H, W) -> four (B, 1 + h*w, C), the class token first, and (h, w).

        The positions are resized bilinearly without smoothing, as the reference does.
        """
        cells = self.patch_embed(images)
        size = (int(cells.shape[2]), int(cells.shape[3]))
        positions = resize_positions(self.pos_embed[0], self.config.grid, size, mode="bilinear")
        first = self.cls_token.expand(len(images), -1, -1)
        tokens = torch.cat((first, cells.flatten(2).transpose(1, 2)), dim=1) + positions
        found = []
        for index, block in enumerate(self.blocks[: self.config.taps[-1] + 1]):
            tokens = block(tokens)
            if index in self.config.taps:
                found.append(tokens)
        return found, size
