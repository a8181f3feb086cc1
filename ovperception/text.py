"""Words to classifier rows: templates, averaging, synonyms, and a cache so that a word is encoded once."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovperception.backbones.base import BackboneSpec
from ovperception.errors import InvalidParameter
from ovperception.templates import resolve_templates
from ovperception.text_cache import EmbeddingCache, Vector
from ovperception.vocabulary import Vocabulary

__all__ = ["TemplateRule", "TextClassifier", "TextEncoder"]

TemplateRule = Literal["normalise_each", "raw_mean"]
"""How a synonym's templates become one vector. ``normalise_each``: unit length, mean, unit length (ViLD,
FC-CLIP). ``raw_mean``: mean of what the tower gives, then unit length (RegionCLIP)."""

_CHUNK = 256
"""Synonyms encoded before the tower is free for another request."""
_FIRST_PROMPTS = 64
_STEP_S = 0.04


@dataclass(frozen=True, eq=False, kw_only=True)
class TextClassifier:
    """What a head classifies against.

    Attributes:
        embeddings: (T, D) float32, unit length, one row a synonym, grouped by class in order.
        vocabulary: K classes and how many synonyms each has.
        text_digest: The text tower the rows came from (`BackboneSpec.text_digest`).
    """

    embeddings: Tensor
    vocabulary: Vocabulary
    text_digest: str
    synonym_counts: tuple[int, ...] = field(init=False)
    _firsts: Tensor | None = field(init=False, repr=False, default=None)
    _others: tuple[tuple[Tensor, Tensor], ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        counts = self.vocabulary.synonym_counts
        if self.embeddings.ndim != 2 or len(self.embeddings) != sum(counts):
            raise InvalidParameter(
                "Rows do not fit the vocabulary",
                field="embeddings",
                expected=f"({sum(counts)}, D)",
                got=tuple(self.embeddings.shape),
            )
        object.__setattr__(self, "synonym_counts", counts)
        if any(count != 1 for count in counts):
            device = self.embeddings.device
            per_class = torch.tensor(counts, device=device)
            firsts = per_class.cumsum(0) - per_class
            object.__setattr__(self, "_firsts", firsts)
            # The n-th synonyms, as (classes that have one, their rows).
            classes = [(per_class > n).nonzero()[:, 0] for n in range(1, max(counts))]
            others = tuple((some, firsts[some] + n) for n, some in enumerate(classes, start=1))
            object.__setattr__(self, "_others", others)

    def __len__(self) -> int:
        """Number of classes K."""
        return len(self.synonym_counts)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, in order."""
        return self.vocabulary.names

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return self.embeddings.numel() * self.embeddings.element_size()

    def reduce(self, logits: Tensor, *, dim: int = -1) -> Tensor:
        """Takes each class's best synonym.

        Args:
            logits: T along `dim`, anything elsewhere.
            dim: Where the texts are.

        Returns:
            The same with K along `dim`; the argument itself where no class has synonyms.
        """
        if logits.shape[dim] != len(self.embeddings):
            raise InvalidParameter(
                "Logits do not fit the vocabulary",
                field="logits",
                expected=f"{len(self.embeddings)} along dimension {dim}",
                got=tuple(logits.shape),
            )
        if self._firsts is None:
            return logits
        best = logits.index_select(dim, self._firsts.to(logits.device))
        for classes, rows in self._others:
            classes, rows = classes.to(logits.device), rows.to(logits.device)
            better = torch.maximum(best.index_select(dim, classes), logits.index_select(dim, rows))
            best = best.index_copy(dim, classes, better)
        return best

    def parts(self, most: int) -> Iterator[TextClassifier]:
        """The classes in order, at most so many at a time."""
        if len(self) <= most:
            yield self
            return
        row = 0
        for start in range(0, len(self), most):
            classes = self.vocabulary.classes[start : start + most]
            rows = sum(self.synonym_counts[start : start + most])
            yield replace(
                self,
                embeddings=self.embeddings[row : row + rows],
                vocabulary=replace(self.vocabulary, classes=classes),
            )
            row += rows

    def to(self, device: torch.device | str) -> TextClassifier:
        """The same classifier on another device."""
        return replace(self, embeddings=self.embeddings.to(device))


class TextTower(Protocol):
    """The part of a backbone that reads."""

    @property
    def spec(self) -> BackboneSpec:
        """Identity of the weights."""
        ...

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(T, D), not normalised."""
        ...


class TextEncoder:
    """Vocabularies to classifiers, for one backbone. Thread-safe.

    Args:
        backbone: Its text tower encodes.
        cache: Where averaged embeddings are kept. Default: the user's cache folder.
        templates: What a vocabulary without templates of its own is prompted with: the name of a set, one
            template, or a list.
        rule: How templates are averaged.
        max_classifiers: Whole classifiers kept, the longest unused goes first.
        max_classifier_bytes: Bytes of them.
    """

    def __init__(
        self,
        backbone: TextTower,
        *,
        cache: EmbeddingCache | None = None,
        templates: str | Sequence[str] = "vild_14",
        rule: TemplateRule = "normalise_each",
        max_classifiers: int = 64,
        max_classifier_bytes: int = 512 * 2**20,
    ) -> None:
        self.backbone = backbone
        self.cache = EmbeddingCache.default() if cache is None else cache
        self.templates = resolve_templates(templates)
        self.rule: TemplateRule = rule
        self._max = (max_classifiers, max_classifier_bytes)
        self._classifiers: OrderedDict[tuple[str, str], TextClassifier] = OrderedDict()
        self._lock = threading.Lock()
        self._tower = threading.Lock()

    def stand_on(self, other: TextEncoder) -> None:
        """Use the text tower of another encoder, and what it remembers."""
        self.backbone, self.cache, self._tower = other.backbone, other.cache, other._tower

    def classifier(self, vocabulary: Vocabulary) -> TextClassifier:
        """The classifier of a vocabulary, on the backbone's device; only new words are encoded."""
        key = (self.backbone.spec.text_digest, vocabulary.content_hash)
        with self._lock:
            if key in self._classifiers:
                self._classifiers.move_to_end(key)
                return self._classifiers[key]
        rows = self.embed(vocabulary.texts, templates=vocabulary.templates)
        made = TextClassifier(embeddings=rows, vocabulary=vocabulary, text_digest=key[0])
        with self._lock:
            self._classifiers[key] = made
            entries, limit = self._max
            while len(self._classifiers) > 1 and (
                len(self._classifiers) > entries or sum(c.nbytes for c in self._classifiers.values()) > limit
            ):
                self._classifiers.popitem(last=False)
        return made

    def knows(self, vocabulary: Vocabulary) -> bool:
        """Whether its classifier is at hand."""
        with self._lock:
            return (self.backbone.spec.text_digest, vocabulary.content_hash) in self._classifiers

    def negatives(self, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
        """Rows of the strings that look like a class and are not meant.

        Returns:
            (M, D) unit-length rows and (M,) int64 index of the class each belongs to; M may be 0.
        """
        owners = [(i, text) for i, c in enumerate(vocabulary.classes) for text in c.negatives]
        rows = self.embed([text for _, text in owners], templates=vocabulary.templates)
        return rows, torch.tensor([i for i, _ in owners], dtype=torch.long, device=rows.device)

    def embed(self, texts: Sequence[str], *, templates: Sequence[str] | None = None) -> Tensor:
        """Embeds texts, averaged over templates.

        Args:
            texts: Strings to put into the templates.
            templates: Default: the encoder's own.

        Returns:
            (T, D) float32 of unit length, on the device the text tower answers on.
        """
        chosen, space = self._space(templates)
        known = self.cache.get(space, texts)
        missing = list(dict.fromkeys(text for text in texts if text not in known))
        for start in range(0, len(missing), _CHUNK):
            known |= self._made(space, chosen, missing[start : start + _CHUNK])
        rows = (
            np.stack([known[text] for text in texts])
            if texts
            else np.zeros((0, self.backbone.spec.embed_dim), np.float32)
        )
        return torch.from_numpy(rows).to(_device(self.backbone))

    @torch.inference_mode()
    def learn(self, texts: Sequence[str], *, templates: Sequence[str] | None = None) -> Iterator[int]:
        """Encode what is not known yet, little by little, for a thread that has other work in between.

        A step takes about `_STEP_S`; what one step encodes follows from how long the last one took.

        Args:
            texts: as for `embed`.
            templates: as for `embed`.

        Yields:
            After each step, how many texts are still to be encoded; nothing at all if all were known.
        """
        chosen, space = self._space(templates)
        known = self.cache.get(space, texts)
        missing = list(dict.fromkeys(text for text in texts if text not in known))
        size = max(1, _FIRST_PROMPTS // len(chosen))
        while missing:
            some, missing = missing[:size], missing[size:]
            begun = time.perf_counter()
            self._made(space, chosen, some)
            spent_s = time.perf_counter() - begun
            if spent_s > 2 * _STEP_S:
                size = max(1, size // 2)
            elif spent_s < _STEP_S:
                size = min(2 * size, _CHUNK)
            yield len(missing)

    def _space(self, templates: Sequence[str] | None) -> tuple[tuple[str, ...], str]:
        """The templates, and the name under which the cache keeps what they give with these weights."""
        chosen = self.templates if templates is None else tuple(templates)
        identity = json.dumps([self.backbone.spec.text_digest, chosen, self.rule])
        return chosen, hashlib.sha256(identity.encode()).hexdigest()

    def _made(self, space: str, templates: Sequence[str], texts: Sequence[str]) -> dict[str, Vector]:
        """Vectors of a few texts, encoded unless another request has just asked for the same words."""
        with self._tower:
            known = self.cache.get(space, texts)
            fresh = [text for text in texts if text not in known]
            if fresh:
                vectors = self._encode(fresh, templates).cpu().numpy()
                made = dict(zip(fresh, vectors, strict=True))
                self.cache.put(space, made)
                known |= made
        return known

    def _encode(self, texts: Sequence[str], templates: Sequence[str]) -> Tensor:
        prompts = [template.replace("{}", text) for text in texts for template in templates]
        embedded = self.backbone.embed_text(prompts).float().unflatten(0, (len(texts), len(templates)))
        if self.rule == "normalise_each":
            embedded = F.normalize(embedded, dim=-1)
        return F.normalize(embedded.mean(1), dim=-1)


def _device(backbone: TextTower) -> torch.device:
    return getattr(backbone, "device", torch.device("cpu"))
