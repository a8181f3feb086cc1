"""What a head is trained towards: one image's objects and regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ovperception.backbones.base import Backbone, Features
    from ovperception.text import TextClassifier

__all__ = ["Targets", "TrainableHead"]


@dataclass(frozen=True)
class Targets:
    """The truth of one image, in the frame of the padded network input.

    Attributes:
        class_ids: (N,) int64, indices into the training vocabulary.
        masks: (N, H, W) bool.
        boxes: (N, 4) float32 xyxy pixels.
    """

    class_ids: Tensor
    masks: Tensor
    boxes: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Targets:
        """The same truth on another device; `non_blocking` only towards a GPU, which orders its own work."""
        parts = (self.class_ids, self.masks, self.boxes)
        return Targets(*(part.to(device, non_blocking=non_blocking) for part in parts))


@runtime_checkable
class TrainableHead(Protocol):
    """A head that knows its own loss; the loop knows nothing else of it.

    Attributes:
        loss_settings: a dataclass of weights and counts, which a recipe may replace.
    """

    loss_settings: Any

    def losses(
        self, backbone: Backbone, features: Features, targets: list[Targets], text: TextClassifier
    ) -> dict[str, Tensor]:
        """Named, weighted losses of a batch; their sum is minimised."""
        ...
