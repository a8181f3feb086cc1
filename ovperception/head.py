"""The contract between a frozen backbone, a head, and the words.

A head splits in two. `Head.encode` is the heavy half: it sees pixels and knows no words, so images asked
about with different vocabularies share one batch, and a kept `Encoding` answers any later question.
`Head.classify` is the light half: one image's encoding against one `TextClassifier`.

An `Encoding` is a frozen dataclass of tensors whose leading dimension is the batch; `Scores` go to
`ovperception.postprocess`, which alone knows thresholds, suppression, merging and full resolution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar, runtime_checkable

from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ovperception.backbones.base import Backbone, Features
    from ovperception.text import TextClassifier

__all__ = [
    "BoxRules",
    "BoxScores",
    "Encoding",
    "Head",
    "MaskEncoding",
    "MaskScores",
    "ObjectnessRule",
    "PixelEncoding",
    "PixelScores",
    "RegionEncoding",
    "RegionHead",
    "Scores",
    "Suppression",
    "Task",
    "TextPixelScores",
    "one_image",
]

Task = Literal["detect", "semantic", "panoptic"]

_TOGETHER = 1024
"""Classes of a map whose logits are made at once."""

ObjectnessRule = Literal["none", "sqrt_raw", "sqrt_sigmoid"]
"""What a proposal's objectness does to the scores p of its classes. ``none``: nothing. ``sqrt_sigmoid``: the
geometric mean of p and the objectness as a probability, 0 to 1. ``sqrt_raw``: sqrt(p * logit), as RegionCLIP
was published: above 1 for a confident proposal, and a proposal with a negative logit vanishes."""

Suppression = Literal["hard", "soft"]
"""Of two overlapping boxes of a class, ``hard`` drops the worse, ``soft`` lowers its score."""


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


_E = TypeVar("_E", bound=Encoding)


def one_image(encoding: Encoding, kind: type[_E], refusal: str) -> _E:
    """What a head's `classify` takes: the encoding of one image, of its own kind.

    Args:
        encoding: As it was given.
        kind: The head's own.
        refusal: What to say where it is not.

    Raises:
        InvalidParameter: More images than one, or the encoding of another head.
    """
    if not isinstance(encoding, kind) or len(encoding) != 1:
        raise InvalidParameter(
            refusal,
            expected=f"the {kind.__name__} of one image, such as encoding[0]",
            got=f"{type(encoding).__name__} of {len(encoding)} images",
        )
    return encoding


@dataclass(frozen=True)
class RegionEncoding(Encoding):
    """Regions with one text-aligned embedding each.

    Images of a batch may differ in their number of regions; the shorter ones are padded, and the encoding of
    one image (`encoding[i]`) drops its padding.

    Attributes:
        embeddings: (B, Q, D), not necessarily of unit length.
        boxes: (B, Q, 4) xyxy, pixels of the network input.
        objectness: (B, Q) raw logits, or None.
        valid: (B, Q) bool, False for padding; None if there is none.
    """

    embeddings: Tensor
    boxes: Tensor
    objectness: Tensor | None = None
    valid: Tensor | None = None

    def __getitem__(self, index: int) -> Self:
        """The regions of one image, still with a leading dimension of 1."""
        one = super().__getitem__(index)
        if one.valid is None:
            return one
        kept = {k: v[:, one.valid[0]] for k, v in one._tensors().items() if k != "valid"}
        return dataclasses.replace(dataclasses.replace(one, valid=None), **kept)


@dataclass(frozen=True)
class PixelEncoding(Encoding):
    """One text-aligned embedding per cell of a grid.

    Attributes:
        embeddings: (B, D, h, w), unit length over D; where several views of the image were averaged
            (`ovperception.sliding`) the mean of such, which is shorter.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxRules:
    """How a head means its boxes to be ranked and thinned out.

    Attributes:
        objectness: What the proposals' objectness does to the scores; without objectness, nothing.
        report: Which score is told. ``rank``: the one that decided. ``class``: the class score alone, though
            the other one decided who stays and in which order.
        suppression: What happens to boxes of one class that overlap.
    """

    objectness: ObjectnessRule = "none"
    report: Literal["rank", "class"] = "rank"
    suppression: Suppression = "hard"


@dataclass(frozen=True)
class BoxScores:
    """One image's boxes with class scores.

    Attributes:
        scores: (N, K), the background column already removed.
        boxes: (N, 4) or (N, K, 4) xyxy, pixels of the network input.
        objectness: (N,) raw logits of the proposals, or None.
        rules: What post-processing shall do with them.
    """

    scores: Tensor
    boxes: Tensor
    objectness: Tensor | None = None
    rules: BoxRules = BoxRules()


@dataclass(frozen=True)
class PixelScores:
    """One image's class logits on a grid that covers the padded network input.

    Attributes:
        logits: (K, h, w).
        align_corners: Whether the outermost cells lie on the outermost pixels, instead of half a cell inside.
    """

    logits: Tensor
    align_corners: bool = False

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return len(self.logits)

    @property
    def device(self) -> torch.device:
        """Where the scores are computed."""
        return self.logits.device

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return self.logits.shape[1], self.logits.shape[2]

    def cells(self, rows: slice, columns: slice) -> Tensor:
        """(h', w', K) logits of a part of the grid."""
        return self.logits[:, rows, columns].permute(1, 2, 0)

    @property
    def together(self) -> int:
        """How many classes `pieces` holds at once."""
        return self.classes

    def pieces(self, rows: slice, columns: slice) -> Iterator[Tensor]:
        """`cells`, some classes at a time: (h', w', K') of consecutive ones."""
        yield from self.cells(rows, columns).split(_TOGETHER, dim=2)


@dataclass(frozen=True, kw_only=True)
class TextPixelScores:
    """`PixelScores` of any number of classes that take no memory: made where they are read.

    Attributes:
        embeddings: (D, h, w) of the pixels; read fastest where the numbers of a pixel lie side by side.
        text: K classes.
        scale: What similarities are multiplied by.
        align_corners: As of `PixelScores`.
        offsets: (K,), added to the logits of the classes; None: nothing is.
        refine: What is done to logits (K, h', w') on the grid, zeros around it; None: nothing.
        reach: How many cells away `refine` looks.
    """

    embeddings: Tensor
    text: TextClassifier
    scale: float
    align_corners: bool = False
    offsets: Tensor | None = None
    refine: Callable[[Tensor], Tensor] | None = None
    reach: int = 0

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return len(self.text)

    @property
    def device(self) -> torch.device:
        """Where the scores are computed."""
        return self.embeddings.device

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return self.embeddings.shape[1], self.embeddings.shape[2]

    @property
    def logits(self) -> Tensor:
        """(K, h, w), all of them: as much memory as that takes."""
        height, width = self.grid
        return self.cells(slice(0, height), slice(0, width)).permute(2, 0, 1)

    @property
    def similarities(self) -> Tensor:
        """(h, w), the largest inner product of each cell with any row of the text."""
        rows = self.text.embeddings.to(self.embeddings)
        return (rows @ self.embeddings.flatten(1)).amax(0).view(self.grid)

    def cells(self, rows: slice, columns: slice) -> Tensor:
        """(h', w', K) logits of a part of the grid, as they would be cut from the whole."""
        height, width = self.grid
        top, left = max(rows.start - self.reach, 0), max(columns.start - self.reach, 0)
        bottom, right = min(rows.stop + self.reach, height), min(columns.stop + self.reach, width)
        logits = self._multiplied(self.embeddings[:, top:bottom, left:right].permute(1, 2, 0), self.text)
        if self.offsets is not None:
            logits = logits + self.offsets.to(logits)
        if self.refine is not None:
            logits = self.refine(logits.permute(2, 0, 1)).permute(1, 2, 0)
        inner_rows = slice(rows.start - top, rows.stop - top)
        return logits[inner_rows, columns.start - left : columns.stop - left]

    @property
    def together(self) -> int:
        """How many classes `pieces` holds at once."""
        return min(self.classes, _TOGETHER) if self.refine is None else self.classes

    def pieces(self, rows: slice, columns: slice) -> Iterator[Tensor]:
        """`cells`, some classes at a time: (h', w', K') of consecutive ones."""
        if self.refine is not None:
            # It may look at all classes.
            yield from self.cells(rows, columns).split(_TOGETHER, dim=2)
            return
        some = self.embeddings[:, rows, columns].permute(1, 2, 0).contiguous()
        offsets = None if self.offsets is None else self.offsets.to(some).split(_TOGETHER)
        for index, text in enumerate(self._parts):
            logits = self._multiplied(some, text)
            yield logits if offsets is None else logits.add_(offsets[index])

    @cached_property
    def _parts(self) -> tuple[TextClassifier, ...]:
        return tuple(self.text.parts(_TOGETHER))

    def _multiplied(self, some: Tensor, text: TextClassifier) -> Tensor:
        """(h', w', D) -> (h', w', K')."""
        from ovperception.backbones.fast_linear import linear

        return text.reduce(linear(some, self.scale * text.embeddings.to(some)))


Scores = MaskScores | BoxScores | PixelScores | TextPixelScores


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


@runtime_checkable
class RegionHead(Head, Protocol):
    """A head that classifies boxes, its own proposals or anybody's."""

    @property
    def proposes(self) -> bool:
        """Whether `encode` finds regions by itself; if not, they must be given."""
        ...

    @property
    def segments(self) -> bool:
        """Whether `segment_boxes` makes masks."""
        ...

    def encode_boxes(self, backbone: Backbone, features: Features, boxes: Sequence[Tensor]) -> RegionEncoding:
        """The wordless half for given boxes, which stay where they are.

        Args:
            backbone: Embeds the boxes.
            features: Maps of B images; what is kept of them will do (`Backbone.region_stages`).
            boxes: B tensors (N_i, 4), xyxy in pixels of the network input.
        """
        ...

    def segment_boxes(self, backbone: Backbone, features: Features, boxes: Tensor) -> Tensor | None:
        """A mask inside each of (N, 4) boxes of one image: (N, S, S) probabilities; None: it makes none."""
        ...


@runtime_checkable
class MaskEncoding(Protocol):
    """An encoding that holds masks, whatever else it holds."""

    @property
    def mask_logits(self) -> Tensor:
        """(B, Q, h, w) on a grid that covers the padded network input."""
        ...
