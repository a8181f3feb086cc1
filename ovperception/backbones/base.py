"""What a frozen CLIP backbone gives: maps, dense and region embeddings, text embeddings, its identity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Backbone", "BackboneSpec", "FeatureSpec", "Features"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """Channels and stride (pixels of the input per cell) of one stage."""

    channels: int
    stride: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """The identity card of one set of frozen weights.

    Attributes:
        name: ``open_clip:ARCH/PRETRAINED``, or ``open_clip:ARCH`` when the weights came from a file.
        family: ``convnext``, ``resnet``, ``vit``, or ``text`` where there is no image tower.
        digest: SHA-256 (hex) over the names, shapes, dtypes and bytes of all weights, both towers.
        text_digest: the same over what the text embeddings depend on alone: text tower, tokenizer, context.
        stages: name -> channels and stride, finest first; the last one is what `embed_dense` reads.
        embed_dim: D, size of the shared image-text space.
        image_size: side in pixels at which the weights were trained.
        mean, std: image statistics per RGB channel, in the 0-1 range.
        logit_scale: temperature already exponentiated (official CLIP: 100.0).
        logit_bias: additive bias of sigmoid-trained models, else 0.
    """

    name: str
    family: str
    digest: str
    text_digest: str
    stages: Mapping[str, FeatureSpec]
    embed_dim: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    logit_scale: float
    logit_bias: float = 0.0

    def check_embed_dim(self, embed_dim: int) -> None:
        """Refuse a head of another CLIP space.

        Raises:
            InvalidParameter: It was built for another size of the embeddings.
        """
        if embed_dim != self.embed_dim:
            raise InvalidParameter(
                "The head is of another CLIP space than the backbone",
                field="embed_dim",
                expected=str(self.embed_dim),
                got=embed_dim,
                mend="Use the backbone that the head was trained on, or trained towards the words of",
            )


@dataclass(frozen=True)
class Features:
    """Multi-scale maps of a batch.

    Attributes:
        maps: stage name -> (B, C, h, w); for `vit` the maps are of one stride.
        image_size: (height, width) of the padded network input the maps were computed from.
        images: (B, 3, H, W) that network input itself, normalised, for a head that needs pixels; None in
            what is kept of an image (`image`, `only`), which shall stay small.
    """

    maps: Mapping[str, Tensor]
    image_size: tuple[int, int]
    images: Tensor | None = None

    def __getitem__(self, stage: str) -> Tensor:
        """The map of one stage."""
        return self.maps[stage]

    def check(self, stages: Sequence[str], channels: Sequence[int]) -> None:
        """Refuse maps that a head was not built for.

        Args:
            stages: What it reads.
            channels: Of each of them, as it expects them.

        Raises:
            InvalidParameter: A stage is missing, or has other channels.
        """
        for stage, expected in zip(stages, channels, strict=True):
            found = self.maps.get(stage)
            if found is None or found.shape[1] != expected:
                raise InvalidParameter(
                    "The backbone does not fit this head",
                    field=stage,
                    expected=f"{expected} channels in stage {stage}",
                    got="no such stage" if found is None else f"{found.shape[1]} channels",
                    mend="Use the backbone that the head was trained on",
                )

    def image(self, index: int) -> Features:
        """The maps of one image, still with a leading dimension of 1, without its pixels."""
        return replace(self, maps={k: v[index : index + 1] for k, v in self.maps.items()}, images=None)

    def rows(self, indices: Sequence[int]) -> Features:
        """The maps and pixels of some of the images, copied."""
        kept = list(indices)
        images = None if self.images is None else self.images[kept]
        return replace(self, maps={k: v[kept] for k, v in self.maps.items()}, images=images)

    def only(self, *stages: str) -> Features:
        """A view with fewer stages and no pixels, so that what is kept of an image stays small."""
        return replace(self, maps={k: self.maps[k] for k in stages}, images=None)

    def to(self, device: torch.device | str) -> Features:
        """The same on another device."""
        images = None if self.images is None else self.images.to(device)
        return replace(self, maps={k: v.to(device) for k, v in self.maps.items()}, images=images)

    def clone(self) -> Features:
        """A copy that shares no memory with the batch it was cut from."""
        images = None if self.images is None else self.images.clone()
        return replace(self, maps={k: v.clone() for k, v in self.maps.items()}, images=images)

    @property
    def count(self) -> int:
        """Number of images B; without maps, as of a tower that only reads, that of the pixels."""
        first = next(iter(self.maps.values()), self.images)
        return 0 if first is None else len(first)

    @property
    def nbytes(self) -> int:
        """Bytes the maps hold."""
        return sum(v.numel() * v.element_size() for v in self.maps.values())


@runtime_checkable
class Backbone(Protocol):
    """A frozen CLIP: in eval mode, no gradients, one digest for its life. Also a `torch.nn.Module`."""

    @property
    def spec(self) -> BackboneSpec:
        """The identity card of these weights."""
        ...

    @property
    def dense_stage(self) -> str:
        """Name of the stage that `embed_dense` and `embed_masks` read (``res5`` for pyramids)."""
        ...

    @property
    def region_stages(self) -> tuple[str, ...]:
        """Names of all stages that the `embed_*` methods read: what is worth keeping of an image."""
        ...

    def features(self, images: Tensor) -> Features:
        """(B, 3, H, W) normalised float images -> multi-scale maps. Any H, W of at least one cell."""
        ...

    def embed_dense(self, features: Features) -> Tensor:
        """(B, D, h, w): a text-aligned embedding per cell of the dense stage, unit length over D."""
        ...

    def embed_masks(self, features: Features, masks: Tensor) -> Tensor:
        """Text-aligned embeddings of masked regions.

        Args:
            features: Maps of B images.
            masks: (B, Q, h, w) bool on the dense stage's grid; an empty mask gives a finite embedding.

        Returns:
            (B, Q, D), NOT normalised.
        """
        ...

    def embed_boxes(self, features: Features, boxes: Sequence[Tensor]) -> Tensor:
        """Text-aligned embeddings of boxes.

        Args:
            features: Maps of B images.
            boxes: B tensors (N_i, 4), xyxy in pixels of the network input.

        Returns:
            (sum N_i, D), NOT normalised.
        """
        ...

    def box_maps(self, features: Features, boxes: Sequence[Tensor]) -> Iterator[Tensor]:
        """The last stage, run on each box on its own, before pooling: what a mask head reads.

        Args:
            features: Maps of B images.
            boxes: B tensors (N_i, 4), xyxy in pixels of the network input.

        Yields:
            (some of sum N_i, C, S, S), in order.

        Raises:
            Unsupported: The family pools boxes without running a stage on each.
        """
        ...

    def embed_image(self, images: Tensor) -> Tensor:
        """(B, D): the ordinary global CLIP embedding of (B, 3, S, S) images at ``spec.image_size``."""
        ...

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(T, D) text embeddings, NOT normalised; prompts are cut to the longest of their batch."""
        ...
