"""What a region head asks of whatever proposes boxes to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from ovperception.backbones.base import Features

__all__ = ["Proposals", "Proposer", "TrainableProposer"]


@dataclass(frozen=True)
class Proposals:
    """Boxes of one image in which something may be, the likeliest first.

    Attributes:
        boxes: (N, 4) float32 xyxy, pixels of the network input, clipped to it.
        objectness: (N,) float32 raw logits.
    """

    boxes: Tensor
    objectness: Tensor

    def __len__(self) -> int:
        """Number of boxes N."""
        return len(self.boxes)


@runtime_checkable
class Proposer(Protocol):
    """Where boxes come from; it knows no words. Also a `torch.nn.Module`.

    One that looks at pixels finds them in ``features.images``.
    """

    def propose(self, features: Features) -> list[Proposals]:
        """The proposals of each of the B images that the features are of; an image may have none."""
        ...


@runtime_checkable
class TrainableProposer(Proposer, Protocol):
    """A proposer that knows its own loss."""

    def losses(self, features: Features, boxes: Sequence[Tensor]) -> dict[str, Tensor]:
        """Named losses against the truth: B tensors (N_i, 4), xyxy in pixels of the network input."""
        ...
