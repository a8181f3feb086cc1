"""The text half of open_clip models: prompts to embeddings, paying only for the tokens that count.

The text transformer is causal and is read at the end token, so nothing after it can matter: sequences are
cut to the longest of their batch, and batches are formed by length. The result equals the full context.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ovperception.backbones.tokenizer import CLIPTokenizer

__all__ = ["embed_prompts", "embedding_size", "encode_tokens", "is_causal", "text_tower"]

_log = logging.getLogger(__name__)


def text_tower(model: nn.Module) -> Any:
    """The module that holds the text weights: ``model.text``, or the model itself for open_clip's `CLIP`."""
    return model.text if hasattr(model, "text") else model


def _pool_type(tower: Any) -> str:
    kind: str = tower.text_pool_type if hasattr(tower, "text_pool_type") else tower.pool_type
    return kind


def is_causal(model: nn.Module) -> bool:
    """Whether sequences may be cut after their end token: causal attention, read at the largest id."""
    tower = text_tower(model)
    return getattr(tower, "attn_mask", None) is not None and _pool_type(tower) == "argmax"


def encode_tokens(model: nn.Module, tokens: Tensor) -> Tensor:
    """Embeds token sequences; gradients flow if the model's weights want them.

    Args:
        model: An open_clip `CLIP` or `CustomTextCLIP` with open_clip's own causal text transformer.
        tokens: (T, L) ids, cut to any L that keeps the end token of every row.

    Returns:
        (T, D) embeddings, NOT normalised.
    """
    tower = text_tower(model)
    length = tokens.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])  # (T, L, W)
    # The norm is per token, so only the token that is read needs it.
    x = tower.ln_final(x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)])
    projection = tower.text_projection
    if projection is None:
        pooled: Tensor = x
    elif isinstance(projection, nn.Linear):
        pooled = projection(x)
    else:
        pooled = x @ projection
    return pooled


def embed_prompts(
    model: nn.Module, tokenizer: CLIPTokenizer, prompts: Sequence[str], *, batch_size: int = 128
) -> Tensor:
    """Embeds prompts: each different one once, in batches of similar length.

    Args:
        model: As for `encode_tokens`; other text towers run at their full context.
        tokenizer: Gives ids and true lengths.
        prompts: T strings; one longer than the context loses its tail, which is logged.
        batch_size: Sequences a forward pass.

    Returns:
        (T, D) float32, NOT normalised, on the model's device, in the order of the prompts.
    """
    rows: dict[str, int] = {}
    order = [rows.setdefault(prompt, len(rows)) for prompt in prompts]
    device = text_tower(model).token_embedding.weight.device
    if not rows:
        return torch.zeros(0, embedding_size(model), device=device)
    tokens = tokenizer(list(rows))
    if tokens.cut:
        _log.warning("%d of %d prompts exceed the context of %d tokens and were cut",
                     tokens.cut, len(rows), tokenizer.context_length)  # fmt: skip
    by_length = tokens.lengths.argsort(stable=True)
    causal = is_causal(model)
    parts = []
    for chosen in by_length.split(batch_size):
        ids = tokens.ids[chosen]
        if causal:
            ids = ids[:, : int(tokens.lengths[chosen].max())]
            parts.append(encode_tokens(model, ids.to(device)).float())
        else:
            parts.append(model.encode_text(ids.to(device)).float())  # type: ignore[operator]
    embedded = torch.cat(parts)
    unsorted = torch.empty_like(embedded)
    unsorted[by_length.to(device)] = embedded
    return unsorted[torch.tensor(order, device=device)]


def embedding_size(model: nn.Module) -> int:
    """D: what the text projection gives, or the width of the transformer where there is none."""
    tower = text_tower(model)
    projection = tower.text_projection
    if projection is None:
        return int(tower.positional_embedding.shape[1])
    return int(projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])
