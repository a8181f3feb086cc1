"""One frozen CLIP: an open_clip model behind the `Backbone` contract.

What differs between families (where dense, text-aligned features are found) is a `Trunk`; what does not
(freezing, identity, text, checks) is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovperception.backbones.base import BackboneSpec, Features, FeatureSpec
from ovperception.backbones.text_tower import embed_prompts, embedding_size, text_tower
from ovperception.backbones.tokenizer import CLIPTokenizer
from ovperception.errors import InvalidImage, InvalidRegions, Unsupported

__all__ = ["ClipBackbone", "Trunk", "weights_digest"]

MAX_LOGIT_SCALE = 100.0
"""CLIP clips its temperature here in training (Radford et al. 2021, section 2.5), after the exponential."""


class Trunk(Protocol):
    """The image half of one family: maps, and what to do with them."""

    family: str
    dense_stage: str
    region_stages: tuple[str, ...]
    image_size: int
    stages: Mapping[str, FeatureSpec]

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> stage name -> (B, C, h, w)."""
        ...

    def embed_dense(self, maps: Mapping[str, Tensor]) -> Tensor:
        """(B, D, h, w), not normalised."""
        ...

    def embed_masks(self, maps: Mapping[str, Tensor], masks: Tensor) -> Tensor:
        """(B, Q, D), not normalised."""
        ...

    def embed_boxes(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """(sum N_i, D), not normalised."""
        ...


@runtime_checkable
class _RegionTrunk(Protocol):
    """A trunk whose last stage can run on single regions."""

    def box_maps(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Iterator[Tensor]:
        """(some of N, C, S, S) at a time."""
        ...


def weights_digest(tensors: Iterable[tuple[str, Tensor]], *, header: str = "") -> str:
    """SHA-256 (hex) over a header and the name, shape, dtype and bytes of every tensor, ordered by name."""
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(f"\n{name}|{tuple(tensor.shape)}|{tensor.dtype}\n".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


class ClipBackbone(nn.Module):
    """A frozen open_clip model; use `load_backbone` or `from_open_clip` to make one.

    Args:
        model: The open_clip model, whose weights are final: it is put in eval mode and its gradients are off.
        trunk: Its image half.
        tokenizer: Its tokenizer.
        name: As `BackboneSpec.name`.
        mean: Image mean per RGB channel.
        std: Image deviation per RGB channel.
        config: The open_clip configuration it was built from, for whoever wants to build it again.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        trunk: Trunk,
        tokenizer: CLIPTokenizer,
        name: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        config: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.trunk = trunk
        self.tokenizer = tokenizer
        self.config = config
        self._name, self._mean, self._std = name, mean, std
        self._spec: BackboneSpec | None = None
        self.model.register_load_state_dict_post_hook(self._forget_spec)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode whatever is asked: frozen means frozen."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Stays without gradients whatever is asked."""
        return super().requires_grad_(False)

    def _forget_spec(self, *_: object) -> None:
        self._spec = None

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        before = self.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.dtype != before:
            self._forget_spec()
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Type the weights are kept and the maps computed in."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dense_stage(self) -> str:
        """Name of the stage that `embed_dense` and `embed_masks` read."""
        return self.trunk.dense_stage

    @property
    def region_stages(self) -> tuple[str, ...]:
        """Names of all stages that the `embed_*` methods read: what is worth keeping of an image."""
        return self.trunk.region_stages

    @property
    def spec(self) -> BackboneSpec:
        """The identity card; hashing the weights takes a second or two, once, at the first use."""
        if self._spec is None:
            self._spec = self._make_spec()
        return self._spec

    def _make_spec(self) -> BackboneSpec:
        state: dict[str, Tensor] = self.model.state_dict()
        tower = text_tower(self.model)
        activation = type(tower.transformer.resblocks[0].mlp.gelu).__name__
        text = {
            k: v
            for k, v in state.items()
            if not k.startswith("visual.") and k not in ("logit_scale", "logit_bias")
        }
        scale = float(self.model.logit_scale.detach().float().exp().reshape(-1)[0])  # type: ignore[operator]
        bias = getattr(self.model, "logit_bias", None)
        return BackboneSpec(
            name=self._name,
            family=self.trunk.family,
            digest=weights_digest(state.items(), header=f"activation={activation}"),
            text_digest=weights_digest(
                text.items(), header=f"activation={activation} tokenizer={self.tokenizer.identity}"
            ),
            stages=self.trunk.stages,
            embed_dim=embedding_size(self.model),
            image_size=self.trunk.image_size,
            mean=self._mean,
            std=self._std,
            logit_scale=scale if bias is not None else min(scale, MAX_LOGIT_SCALE),
            logit_bias=0.0 if bias is None else float(bias.detach().float().reshape(-1)[0]),
        )

    def features(self, images: Tensor) -> Features:
        """(B, 3, H, W) normalised images -> multi-scale maps in the backbone's own dtype.

        Raises:
            InvalidImage: Not (B, 3, H, W), or smaller than one cell of the coarsest stage.
        """
        cell = max((stage.stride for stage in self.trunk.stages.values()), default=1)
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < cell:
            raise InvalidImage(
                "The backbone cannot run on this batch",
                expected=f"(B, 3, H, W) with H and W of at least {cell}",
                got=tuple(images.shape),
            )
        images = images.to(self.device)
        maps = self.trunk.maps(images.to(self.dtype))
        return Features(maps=maps, image_size=(images.shape[2], images.shape[3]), images=images)

    def compile_trunk(self) -> None:
        """Run the image half through ``torch.compile`` from now on."""
        self.trunk.maps = torch.compile(self.trunk.maps)  # type: ignore[method-assign]

    def embed_dense(self, features: Features) -> Tensor:
        """(B, D, h, w) float32: a text-aligned embedding per cell, unit length over D."""
        return F.normalize(self.trunk.embed_dense(features.maps).float(), dim=1)

    def embed_masks(self, features: Features, masks: Tensor) -> Tensor:
        """Text-aligned embeddings of masked regions.

        Args:
            features: Maps of B images.
            masks: (B, Q, h, w) bool on the dense stage's grid.

        Returns:
            (B, Q, D) float32, not normalised; finite for an empty mask.

        Raises:
            InvalidRegions: `masks` is not on the grid.
        """
        if not self.trunk.stages:
            return self.trunk.embed_masks(features.maps, masks)  # which says why not
        dense = features[self.dense_stage]
        if masks.ndim != 4 or masks.shape[0] != dense.shape[0] or masks.shape[2:] != dense.shape[2:]:
            raise InvalidRegions(
                "Masks do not lie on the dense grid",
                field="masks",
                expected=f"({dense.shape[0]}, Q, {dense.shape[2]}, {dense.shape[3]})",
                got=tuple(masks.shape),
            )
        return self.trunk.embed_masks(features.maps, masks.bool()).float()

    def embed_boxes(self, features: Features, boxes: Sequence[Tensor]) -> Tensor:
        """Text-aligned embeddings of boxes.

        Args:
            features: Maps of B images.
            boxes: B tensors (N_i, 4), xyxy in pixels of the network input.

        Returns:
            (sum N_i, D) float32, not normalised.

        Raises:
            InvalidRegions: Not one (N, 4) tensor per image.
        """
        if not self.trunk.stages:
            return self.trunk.embed_boxes(features.maps, boxes)  # which says why not
        _check_boxes(boxes, len(next(iter(features.maps.values()))))
        return self.trunk.embed_boxes(features.maps, boxes).float()

    def box_maps(self, features: Features, boxes: Sequence[Tensor]) -> Iterator[Tensor]:
        """The last stage, run on each box on its own, before pooling: what a mask head reads.

        Args:
            features: Maps of B images.
            boxes: B tensors (N_i, 4), xyxy in pixels of the network input.

        Yields:
            (some of sum N_i, C, S, S) float32, in order; a bounded number of boxes at a time.

        Raises:
            InvalidRegions: Not one (N, 4) tensor per image.
            Unsupported: The family pools boxes without running a stage on each.
        """
        if not isinstance(self.trunk, _RegionTrunk):
            raise Unsupported(
                f"A backbone of the family {self.trunk.family!r} runs no stage on single boxes",
                field="backbone",
                expected="a ModifiedResNet, such as open_clip:RN50",
            )
        _check_boxes(boxes, len(next(iter(features.maps.values()))))
        return (some.float() for some in self.trunk.box_maps(features.maps, boxes))

    def embed_image(self, images: Tensor) -> Tensor:
        """(B, D) float32: the original global embedding, not normalised.

        Raises:
            InvalidImage: Not (B, 3, S, S) at the trained size.
        """
        side = self.trunk.image_size
        if images.ndim != 4 or images.shape[1:] != (3, side, side):
            raise InvalidImage(
                "The global embedding is defined at the trained size only",
                expected=f"(B, 3, {side}, {side})",
                got=tuple(images.shape),
            )
        embedded: Tensor = self.model.visual(images.to(self.device, self.dtype))  # type: ignore[operator]
        return embedded.float()

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(T, D) float32 text embeddings, not normalised, in the order of the prompts."""
        with torch.no_grad():
            return embed_prompts(self.model, self.tokenizer, prompts)


def _check_boxes(boxes: Sequence[Tensor], batch: int) -> None:
    if len(boxes) != batch or any(b.ndim != 2 or b.shape[1] != 4 for b in boxes):
        raise InvalidRegions(
            "Boxes do not fit the batch",
            field="boxes",
            expected=f"{batch} tensors of shape (N, 4)",
            got=[tuple(b.shape) for b in boxes],
        )
