"""The contract between a frozen backbone, a head, and the words.

A head splits in two. `Head.encode` is the heavy half: it sees pixels and knows no words, so images asked
about with different vocabularies share one batch, and a kept `Encoding` answers any later question.
`Head.classify` is the light half: one image's encoding against one `TextClassifier`.

An `Encoding` is a frozen dataclass of tensors whose leading dimension is the batch; `Scores` go to
`ovperception.postprocess`, which alone knows thresholds, suppression, merging and full resolution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ovperception.backbones.base import Backbone, Features
    from ovperception.text import TextClassifier

__all__ = [
    "BoxScores",
    "Encoding",
    "Head",
    "MaskScores",
    "PixelEncoding",
    "PixelScores",
    "RegionEncoding",
    "Scores",
    "Task",
]

Task = Literal["detect", "semantic", "panoptic"]


@dataclass(frozen=True)
class Encoding:
    """What a head keeps of a batch of images: tensors with leading dimension B, nothing about words."""

    def _tensors(self) -> Mapping[str, Tensor]:
        values = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: value for name, value in values if value is not None}

    def __len__(self) -> int:
        """Number of images B."""
        return len(next(iter(self._tensors().values())))

    def __getitem__(self, index: int) -> Self:
        """The encoding of one image, still with a leading dimension of 1."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return dataclasses.replace(self, **{k: v[index : index + 1] for k, v in self._tensors().items()})

    def to(self, device: torch.device | str) -> Self:
        """The same encoding on another device."""
        return dataclasses.replace(self, **{k: v.to(device) for k, v in self._tensors().items()})

    def clone(self) -> Self:
        """A copy that shares no memory with the batch it was cut from."""
        return dataclasses.replace(self, **{k: v.clone() for k, v in self._tensors().items()})

    @property
    def nbytes(self) -> int:
        """Bytes the tensors hold."""
        return sum(v.numel() * v.element_size() for v in self._tensors().values())


@dataclass(frozen=True)
class RegionEncoding(Encoding):
    """Regions with one text-aligned embedding each.

    Attributes:
        embeddings: (B, Q, D), not necessarily of unit length.
        boxes: (B, Q, 4) xyxy, pixels of the network input.
        objectness: (B, Q) raw logits, or None.
    """

    embeddings: Tensor
    boxes: Tensor
    objectness: Tensor | None = None


@dataclass(frozen=True)
class PixelEncoding(Encoding):
    """One text-aligned embedding per cell of a grid.

    Attributes:
        embeddings: (B, D, h, w), unit length over D.
    """

    embeddings: Tensor


@dataclass(frozen=True)
class MaskScores:
    """One image's queries with class probabilities and masks.

    Attributes:
        probabilities: (Q, K + 1), rows sum to 1, the last column is "void" (no object).
        mask_logits: (Q, h, w), a logit per cell of a grid that covers the padded network input.
    """

    probabilities: Tensor
    mask_logits: Tensor


@dataclass(frozen=True)
class BoxScores:
    """One image's boxes with class scores.

    Attributes:
        scores: (N, K), the background column already removed.
        boxes: (N, 4) or (N, K, 4) xyxy, pixels of the network input.
        objectness: (N,) raw logits of the proposals, or None.
    """

    scores: Tensor
    boxes: Tensor
    objectness: Tensor | None = None


@dataclass(frozen=True)
class PixelScores:
    """One image's class logits on a grid that covers the padded network input.

    Attributes:
        logits: (K, h, w).
    """

    logits: Tensor


Scores = MaskScores | BoxScores | PixelScores


@runtime_checkable
class Head(Protocol):
    """What every head in `heads/` provides; a head is also a `torch.nn.Module`."""

    @property
    def tasks(self) -> frozenset[Task]:
        """The questions this head can answer."""
        ...

    def encode(self, backbone: Backbone, features: Features) -> Encoding:
        """The wordless half, batched: feature maps to regions or pixels."""
        ...

    def classify(self, encoding: Encoding, text: TextClassifier) -> Scores:
        """The word half: one image (leading dimension 1) against its own words."""
        ...
