"""The mask decoder of Mask2Former: queries that look only where the layer before saw their mask.

Source: arXiv:2112.01527, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.fcclip.config import FCCLIPConfig
from heads.fcclip.position import sine_encoding

__all__ = ["MLP", "MaskDecoder"]


class MaskDecoder(nn.Module):
    """Learned queries, refined against the levels in turn, each giving one mask."""

    def __init__(self, config: FCCLIPConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.query_features = nn.Parameter(torch.empty(config.queries, dim))
        self.query_positions = nn.Parameter(torch.empty(config.queries, dim))
        self.level_embeddings = nn.Parameter(torch.empty(config.levels, dim))
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(dim)
        self.mask_embedding = MLP(dim, dim, config.mask_dim)
        for table in (self.query_features, self.query_positions, self.level_embeddings):
            nn.init.normal_(table)

    def forward(self, mask_features: Tensor, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The masks after the last layer.

        Args:
            mask_features: (B, mask_dim, H, W).
            levels: (B, dim, h, w) each, coarsest first.

        Returns:
            Mask logits (B, Q, H, W) and the normalised query states (B, Q, dim) they were made from.
        """
        state = self.query_features.expand(len(mask_features), -1, -1)
        memory = self._memory(levels)
        for index, layer in enumerate(self.layers):
            level = index % len(levels)
            height, width = levels[level].shape[-2:]
            attendable = self._attendable_from(self.norm(state), mask_features, (height, width))
            state = layer(state, self.query_positions, *memory[level], attendable)
        state = self.norm(state)
        return self.mask_logits(state, mask_features), state

    def forward_layers(self, mask_features: Tensor, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """As `forward`, before the first layer and after every layer: L = decoder_layers + 1 results.

        Returns:
            Mask logits (B, L, Q, H, W), without gradients, and the normalised query states (B, L, Q, dim).
        """
        state = self.query_features.expand(len(mask_features), -1, -1)
        memory = self._memory(levels)
        states, masks = [self.norm(state)], []
        for index, layer in enumerate(self.layers):
            level = index % len(levels)
            height, width = levels[level].shape[-2:]
            masks.append(self._fixed_mask_logits(states[-1], mask_features))
            attendable = _attendable(_resize(masks[-1], (height, width)))
            state = layer(state, self.query_positions, *memory[level], attendable)
            states.append(self.norm(state))
        masks.append(self._fixed_mask_logits(states[-1], mask_features))
        return torch.stack(masks, dim=1), torch.stack(states, dim=1)

    def mask_logits(self, state: Tensor, mask_features: Tensor) -> Tensor:
        """(B, Q, dim) normalised states and (B, mask_dim, H, W) -> (B, Q, H, W)."""
        logits = self.mask_embedding(state) @ mask_features.flatten(2)
        return logits.unflatten(2, mask_features.shape[-2:])  # type: ignore[no-any-return]

    @torch.no_grad()
    def _fixed_mask_logits(self, state: Tensor, mask_features: Tensor) -> Tensor:
        return self.mask_logits(state, mask_features)

    def _memory(self, levels: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Of each level, what is looked at (B, h w, dim) and its position encoding."""
        memory = []
        for level, embedding in zip(levels, self.level_embeddings, strict=True):
            dim, height, width = level.shape[1:]
            encoding = sine_encoding(height, width, dim, level.device).to(level.dtype)
            memory.append((level.flatten(2).transpose(1, 2) + embedding, encoding))
        return memory

    @torch.no_grad()
    def _attendable_from(self, state: Tensor, mask_features: Tensor, size: tuple[int, int]) -> Tensor:
        """`_attendable` of the mask logits, which are computed only where the resize reads them.

        Halving n times reads the middle 2 x 2 of every 2**n x 2**n block: one logit in four at two levels
        down, one in sixteen at three.
        """
        height, width = mask_features.shape[-2:]
        factor = height // size[0]
        if factor > 2 and factor % 2 == 0 and (height, width) == (size[0] * factor, size[1] * factor):
            middle = factor // 2 - 1
            blocks = mask_features.unflatten(3, (size[1], factor)).unflatten(2, (size[0], factor))
            mask_features = blocks[:, :, :, middle : middle + 2, :, middle : middle + 2]
            mask_features = mask_features.flatten(4, 5).flatten(2, 3)
        return _attendable(_resize(self.mask_logits(state, mask_features), size))


def _resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _attendable(logits: Tensor) -> Tensor:
    """(B, Q, h, w) logits -> (B, 1, Q, h w) bool: inside the mask, or everywhere for an empty mask."""
    inside = logits.flatten(2).sigmoid() >= 0.5
    inside |= ~inside.any(dim=-1, keepdim=True)
    return inside[:, None]


class DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward: each added and then normalised."""

    def __init__(self, config: FCCLIPConfig) -> None:
        super().__init__()
        dim, heads = config.hidden_dim, config.attention_heads
        self.cross_attention = Attention(dim, heads)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_attention = Attention(dim, heads)
        self.self_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, config.decoder_ffn)
        self.contract = nn.Linear(config.decoder_ffn, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        for linear in (self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self, state: Tensor, positions: Tensor, memory: Tensor, memory_positions: Tensor, attendable: Tensor
    ) -> Tensor:
        """Refine the queries.

        Args:
            state: (B, Q, dim).
            positions: (Q, dim) learned query positions.
            memory: (B, S, dim) one level.
            memory_positions: (1, S, dim).
            attendable: (B, 1, Q, S) bool, True where a query may look.

        Returns:
            (B, Q, dim).
        """
        seen = self.cross_attention(state + positions, memory + memory_positions, memory, attendable)
        state = self.cross_norm(state + seen)
        asking = state + positions
        state = self.self_norm(state + self.self_attention(asking, asking, state))
        return self.ffn_norm(state + self.contract(F.relu(self.expand(state))))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head attention with separate projections."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        for linear in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attendable: Tensor | None = None) -> Tensor:
        """(B, Q, dim), (B, S, dim), (B, S, dim) -> (B, Q, dim)."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attendable)
        return self.output(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, dim_in: int, dim_hidden: int, dim_out: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim_in, dim_hidden)
        self.second = nn.Linear(dim_hidden, dim_hidden)
        self.third = nn.Linear(dim_hidden, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim_in) -> (..., dim_out)."""
        return self.third(F.relu(self.second(F.relu(self.first(x)))))  # type: ignore[no-any-return]
