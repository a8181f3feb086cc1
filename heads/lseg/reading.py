"""Where to read the frozen CLIP: every pixel averages CLIP's own embeddings over the thing it belongs to.

A decoder that makes embeddings from its taps learns the words it is taught and loses the others. On a frozen
CLIP that gives a text-aligned embedding a cell it need not make any: it says, for every pixel, which cells
speak for it (how near, how far to the side, at which scale), and those are averaged. What says so knows no
words, so it serves words that were never taught. What is learned about words is added to the cells, and
begins at nothing.

The nearest relatives: masked pooling of CLIP's maps (MaskCLIP, Zhou et al. 2022; FC-CLIP), with a soft mask a
pixel; a Gaussian window with a learned centre, as in Gregor et al., "DRAW", 2015, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.lseg.config import ReadConfig

__all__ = ["Reader"]

_REACH = 3.0
"""Cells that the centre of a window may lie off its pixel."""

_PIXELS = 8192
"""Pixels whose attention is held at once where no gradients are wanted."""


class Reader(nn.Module):
    """Attention of pixels to the cells of the frozen CLIP.

    Args:
        config: Which maps, and sizes.
        features: Channels of what is known of a pixel.
        embed_dim: D.
    """

    def __init__(self, config: ReadConfig, features: int, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        levels = len(config.stages)
        self.norm = nn.LayerNorm(config.channels)
        self.keys = nn.Linear(config.channels, config.key_dim)
        self.queries = nn.Conv2d(features, levels * config.key_dim, 1)
        self.windows = nn.Conv2d(features, levels * 4, 1)
        last = nn.Linear(config.hidden, embed_dim)
        self.adapter = nn.Sequential(nn.Linear(config.channels, config.hidden), nn.GELU(), last)
        for layer in (self.windows, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(cast("Tensor", layer.bias))

    def forward(
        self, known: Tensor, maps: Sequence[Tensor], dense: Sequence[Tensor], *, plain: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Read for every pixel.

        Args:
            known: (B, features, H, W); its corners are those of the picture.
            maps: A (B, C, h, w) of each level, of the picture's whole extent.
            dense: Their text-aligned embeddings, (B, D, h, w).
            plain: Whether to read the frozen embeddings alone as well.

        Returns:
            (B, D, H, W) of what was read with all that was learned, and of the frozen embeddings alone; the
            numbers of a pixel lie side by side.
        """
        tokens = self.norm(torch.cat([m.flatten(2) for m in maps], dim=2).transpose(1, 2))  # (B, M, C)
        frozen = torch.cat([d.flatten(2) for d in dense], dim=2).transpose(1, 2).to(tokens)  # (B, M, D)
        keys, values = self.keys(tokens), frozen + self.adapter(tokens)
        wanted = (values, frozen) if plain else (values,)
        shapes = [(int(m.shape[2]), int(m.shape[3])) for m in maps]
        height, width = known.shape[2:]
        queries = self.queries(known).flatten(2).transpose(1, 2)  # (B, N, L E)
        windows = self.windows(known).flatten(2).transpose(1, 2)  # (B, N, L 4)
        places = _places(height, width, known)
        some = height * width if torch.is_grad_enabled() else _PIXELS
        parts: list[list[Tensor]] = [[] for _ in wanted]
        for q, w, p in zip(queries.split(some, 1), windows.split(some, 1), places.split(some), strict=True):
            shares = self._logits(q, w, keys, p, shapes).softmax(-1)
            # Apart, so that no gradient is filled up with zeros for the other.
            for part, cells in zip(parts, wanted, strict=True):
                part.append(shares @ cells)
        read = [
            (part[0] if len(part) == 1 else torch.cat(part, dim=1)).unflatten(1, (height, width))
            for part in parts
        ]
        learned, *alone = (r.permute(0, 3, 1, 2) for r in read)
        return learned, alone[0] if alone else None

    def _logits(
        self, queries: Tensor, windows: Tensor, keys: Tensor, places: Tensor, shapes: list[tuple[int, int]]
    ) -> Tensor:
        """(B, N, M): content, nearness and level, each in its own units."""
        found = []
        per_level = keys.split([h * w for h, w in shapes], dim=1)
        for level, (height, width) in enumerate(shapes):
            query = queries[..., level * self.config.key_dim : (level + 1) * self.config.key_dim]
            content = query @ per_level[level].transpose(1, 2) / math.sqrt(self.config.key_dim)
            bias, sharpness, right, down = windows[..., 4 * level : 4 * level + 4].unbind(-1)
            near = F.softplus(sharpness)[..., None]
            across = _offsets(places[:, 0] * width, _REACH * right.tanh(), width)
            along = _offsets(places[:, 1] * height, _REACH * down.tanh(), height)
            distance = (along[..., :, None] + across[..., None, :]).flatten(2)
            found.append(content - near * distance + bias[..., None])
        return torch.cat(found, dim=-1)


def _offsets(places: Tensor, shift: Tensor, cells: int) -> Tensor:
    """(N,) places in cells and (B, N) shifts -> (B, N, cells), squared distances from cells' centres."""
    centres = torch.arange(cells, device=places.device, dtype=places.dtype) + 0.5
    return (centres - (places + shift)[..., None]).square()


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """(H W, 2) as (x, y), 0 to 1 from corner to corner."""
    rows, columns = (torch.linspace(0, 1, n, device=like.device, dtype=like.dtype) for n in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), dim=-1)
