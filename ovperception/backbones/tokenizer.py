"""Prompts to token ids: CLIP's byte-pair encoding, whole or cut to its first merges."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from ovperception.errors import InvalidParameter

__all__ = ["CLIPTokenizer", "FixedTokenizer", "Tokens", "TruncatedBPE", "as_tokenizer"]

FULL_MERGES = 48_894
"""Merges of the published CLIP vocabulary: 49,408 = 2 * 256 bytes + merges + 2 special tokens."""

_WORD_CACHE_LIMIT = 100_000


class TruncatedBPE(SimpleTokenizer):  # type: ignore[misc]
    """CLIP's byte-pair encoding with its first `merges` merges; all of them give CLIP's own ids.

    Fewer merges make a smaller embedding table at the price of longer token sequences. The vocabulary has
    ``512 + merges + 2`` entries; cleaning is CLIP's (unescape, collapse white space, lower case).

    Args:
        merges: How many of the 48,894 published merges to keep.
        context_length: Tokens a sequence is cut or padded to, start and end token included.

    Raises:
        InvalidParameter: `merges` is outside 0..48,894 or `context_length` is below 3.
    """

    encoder: dict[str, int]
    decoder: dict[int, str]
    bpe_ranks: dict[tuple[str, str], int]

    def __init__(self, merges: int = FULL_MERGES, context_length: int = 77) -> None:
        if not 0 <= merges <= FULL_MERGES:
            raise InvalidParameter(
                "Bad tokenizer", field="tokenizer.merges", expected=f"0..{FULL_MERGES}", got=merges
            )
        if context_length < 3:
            raise InvalidParameter(
                "Bad tokenizer", field="tokenizer.context_length", expected="3 or more", got=context_length
            )
        super().__init__(context_length=context_length)
        kept = sorted(self.bpe_ranks, key=self.bpe_ranks.__getitem__)[:merges]
        pieces = [*sorted(self.encoder, key=self.encoder.__getitem__)[:512], *map("".join, kept)]
        pieces += ["<start_of_text>", "<end_of_text>"]
        self.merges = merges
        # Later duplicates win, as in the published vocabulary.
        self.encoder = {piece: index for index, piece in enumerate(pieces)}
        self.decoder = dict(enumerate(pieces))
        self.bpe_ranks = {pair: rank for rank, pair in enumerate(kept)}
        self.vocab_size = len(pieces)
        self.sot_token_id, self.eot_token_id = self.vocab_size - 2, self.vocab_size - 1
        self.all_special_ids = [self.sot_token_id, self.eot_token_id]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Token ids of T prompts.

    Attributes:
        ids: (T, context_length) int64, zero-padded.
        lengths: (T,) int64: position of the end token + 1; what follows cannot change a causal embedding.
        cut: How many prompts were longer than the context and lost their tail (never the end token).
    """

    ids: Tensor
    lengths: Tensor
    cut: int


@runtime_checkable
class CLIPTokenizer(Protocol):
    """What a text tower needs of its tokenizer."""

    @property
    def identity(self) -> str:
        """Name that changes whenever the ids of some prompt may change."""
        ...

    @property
    def context_length(self) -> int:
        """Length of a full sequence."""
        ...

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Token ids of the prompts."""
        ...


class _BPETokenizer:
    def __init__(self, bpe: SimpleTokenizer, context_length: int) -> None:
        self._bpe = bpe
        self._lock = threading.Lock()
        self.context_length = context_length
        self.identity = f"clip_bpe:{bpe.vocab_size}:{context_length}:{bpe.clean_fn.__name__}"

    def __reduce__(self) -> tuple[object, ...]:
        return _BPETokenizer, (self._bpe, self.context_length)  # a lock cannot be copied

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        limit, start, end = self.context_length, self._bpe.sot_token_id, self._bpe.eot_token_id
        ids = torch.zeros(len(prompts), limit, dtype=torch.long)
        lengths = torch.zeros(len(prompts), dtype=torch.long)
        cut = 0
        with self._lock:
            for row, prompt in enumerate(prompts):
                tokens = [start, *self._bpe.encode(prompt)]
                cut += len(tokens) + 1 > limit
                tokens = [*tokens[: limit - 1], end]
                ids[row, : len(tokens)] = torch.tensor(tokens)
                # A prompt may spell the end token itself: the first one is where CLIP reads.
                lengths[row] = tokens.index(end) + 1
            if len(self._bpe.cache) > _WORD_CACHE_LIMIT:  # grows with every new word a server is asked
                self._bpe.cache = {t: t for t in ("<start_of_text>", "<end_of_text>")}
        return Tokens(ids=ids, lengths=lengths, cut=cut)


class FixedTokenizer:
    """Any other open_clip tokenizer: sequences keep their full length.

    Args:
        tokenizer: Callable from prompts to (T, context_length) ids.
        context_length: Length of a sequence.
    """

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self._tokenizer = tokenizer
        self.context_length = context_length
        mode = getattr(tokenizer, "tokenizer_mode", "")
        inner = getattr(getattr(tokenizer, "tokenizer", None), "name_or_path", "")
        self.identity = f"{type(tokenizer).__name__}:{inner}:{mode}:{context_length}"

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Token ids of the prompts."""
        ids = self._tokenizer(list(prompts), context_length=self.context_length)
        return Tokens(ids=ids, lengths=torch.full((len(prompts),), ids.shape[1]), cut=0)


def as_tokenizer(tokenizer: Any, context_length: int) -> CLIPTokenizer:
    """Gives an open_clip tokenizer our call: un-padded lengths, a count of cut prompts, an identity."""
    if isinstance(tokenizer, SimpleTokenizer) and tokenizer.reduction_fn is None:
        return _BPETokenizer(tokenizer, context_length)
    if hasattr(tokenizer, "identity"):
        wrapped: CLIPTokenizer = tokenizer
        return wrapped
    return FixedTokenizer(tokenizer, context_length)
