"""A CLIP of which only the text tower is there, for heads that look with a trunk of their own.

LSeg trained its image trunk towards the text embeddings of a CLIP whose image tower nothing reads. Such a
backbone gives the network input and no maps; its configuration says ``"image_tower": false``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ovperception.backbones.base import FeatureSpec
from ovperception.errors import Unsupported

__all__ = ["NoImageTower", "TextOnlyTrunk"]


def _refusal() -> Unsupported:
    return Unsupported(
        "The CLIP of this model reads words and looks at no images",
        field="backbone",
        mend="Ask its head, or a model that stands on both towers of a CLIP",
    )


class NoImageTower(nn.Module):
    """Stands where the image tower was.

    Args:
        image_size: side in pixels that the tower was trained at.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        """Never.

        Raises:
            Unsupported: always.
        """
        raise _refusal()


class TextOnlyTrunk:
    """The family `text`: no maps and no embeddings of images."""

    family = "text"
    dense_stage = ""
    region_stages: tuple[str, ...] = ()

    def __init__(self, visual: NoImageTower) -> None:
        self.image_size = visual.image_size
        self.stages: Mapping[str, FeatureSpec] = {}

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """None at all."""
        return {}

    def embed_dense(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Raises `Unsupported`."""
        raise _refusal()

    def embed_masks(self, maps: Mapping[str, Tensor], masks: Tensor) -> Tensor:
        """Raises `Unsupported`."""
        raise _refusal()

    def embed_boxes(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Raises `Unsupported`."""
        raise _refusal()
