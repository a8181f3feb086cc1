"""The LSeg head: an embedding for every second pixel; words are multiplied with them at the very end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from heads.lseg.blocks import RegularisationBlock
from heads.lseg.config import LEVELS, LSegConfig
from heads.lseg.decoder import Decoder
from heads.lseg.losses import LossSettings, pixel_text_loss
from heads.lseg.trunk import VisionTransformer
from ovperception.errors import InvalidParameter
from ovperception.head import Encoding, PixelEncoding, Task, TextPixelScores
from ovperception.sliding import look_around

if TYPE_CHECKING:
    from ovperception.backbones.base import Backbone, BackboneSpec, Features
    from ovperception.text import TextClassifier
    from ovperception.training.targets import Targets

__all__ = ["LSeg"]


class LSeg(nn.Module):
    """Semantic segmentation with any words by one embedding for every second pixel.

    Args:
        config: Sizes and constants.
    """

    tasks: frozenset[Task] = frozenset({"semantic"})

    def __init__(self, config: LSegConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = None if config.trunk is None else VisionTransformer(config.trunk)
        self.decoder = Decoder(config)
        self.block: RegularisationBlock | None = None
        if config.arch_option:
            self.block = RegularisationBlock(
                "bottleneck" if config.arch_option == 1 else "depthwise",
                config.applications,
                config.activation,
            )
        self.loss_settings = LossSettings()

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], backbone: BackboneSpec) -> Self:
        """Build a head for a backbone; what `settings` leaves out of the backbone's facts is filled in.

        Args:
            settings: Fields of `LSegConfig`. Without a trunk and stages, the backbone's four finest stages.
            backbone: The CLIP it will stand on, or whose words it is aligned with.

        Raises:
            InvalidParameter: An unknown setting, or one that no head can be built from.
        """
        facts: dict[str, Any] = {"embed_dim": backbone.embed_dim}
        if settings.get("trunk") is None:
            stages = tuple(settings.get("stages") or list(backbone.stages)[:LEVELS])
            known = [backbone.stages[s] for s in stages if s in backbone.stages]
            facts |= {
                "stages": stages,
                "stage_channels": tuple(s.channels for s in known),
                "stage_strides": tuple(s.stride for s in known),
            }
        config = LSegConfig.from_dict(facts | {k: v for k, v in settings.items() if k != "stages" or v})
        if config.embed_dim != backbone.embed_dim:
            raise InvalidParameter(
                "The head is of another CLIP space than the backbone",
                field="embed_dim",
                expected=str(backbone.embed_dim),
                got=config.embed_dim,
                mend="Use the backbone whose text tower the head was trained towards",
            )
        return cls(config)

    def encode(self, backbone: Backbone, features: Features) -> PixelEncoding:
        """The wordless half.

        Args:
            backbone: The CLIP the features came from.
            features: Maps of B images with the stages `config.stages`; with their pixels if the head has its
                own trunk or more views than one.

        Returns:
            Embeddings at half the size of the network input (a fourth of the finest stage's stride where the
            head stands on the backbone's maps), or of the views' grid. The corners of the grid are those of
            the network input.

        Raises:
            InvalidParameter: Pixels or a stage are missing, a stage has other channels than the head was
                built for, or the input is no multiple of the trunk's patch.
        """
        if self.config.views is None:
            return PixelEncoding(embeddings=self(features))
        images = _pixels(features)
        found = look_around(lambda some: self(self._look(backbone, some)), images, self.config.views)
        return PixelEncoding(embeddings=found)

    def forward(self, features: Features) -> Tensor:
        """One look: features of B images -> (B, D, h, w) of unit length, with gradients."""
        if self.trunk is None:
            self._check(features)
            maps = [features[stage].to(self.decoder.head.weight.dtype) for stage in self.config.stages]
            embeddings: Tensor = self.decoder(maps)
            return embeddings
        images = _pixels(features)
        patch = self.trunk.config.patch_size
        if images.shape[2] % patch or images.shape[3] % patch:
            raise InvalidParameter(
                "The input is not cut into whole patches",
                field="preprocessing.multiple",
                expected=f"sides that are multiples of {patch}",
                got=tuple(images.shape[2:]),
                mend="Let the preprocessing pad to a multiple of 32",
            )
        tokens, size = self.trunk(images.to(self.decoder.head.weight.dtype))
        embeddings = self.decoder(tokens, size)
        return embeddings

    def _look(self, backbone: Backbone, images: Tensor) -> Features:
        from ovperception.backbones.base import Features

        if self.trunk is None:
            return backbone.features(images)
        return Features(maps={}, image_size=(images.shape[2], images.shape[3]), images=images)

    def losses(
        self, backbone: Backbone, features: Features, targets: list[Targets], text: TextClassifier
    ) -> dict[str, Tensor]:
        """Named, weighted losses of a batch; `loss_settings` holds weight and sampling."""
        return pixel_text_loss(
            lambda embeddings: self.logits(embeddings, text),
            self(features),
            targets,
            features.image_size,
            self.loss_settings,
            whole_maps=self.block is not None,
        )

    def logits(self, embeddings: Tensor, text: TextClassifier) -> Tensor:
        """(B, D, h, w) embeddings -> (B, K, h, w) logits, with gradients; as much memory as that takes."""
        rows = text.embeddings.to(embeddings)
        logits = text.reduce(self.config.logit_scale * torch.einsum("td,bdhw->bthw", rows, embeddings), dim=1)
        return logits if self.block is None else self.block(logits)

    @torch.no_grad()
    def classify(self, encoding: Encoding, text: TextClassifier) -> TextPixelScores:
        """The word half: one image against its own words; nothing is multiplied yet.

        Args:
            encoding: Of one image (leading dimension 1), from `encode`.
            text: K classes.

        Raises:
            InvalidParameter: More than one image, or the encoding of another head.
        """
        fits = isinstance(encoding, PixelEncoding) and len(encoding) == 1
        if not isinstance(encoding, PixelEncoding) or not fits:
            raise InvalidParameter(
                "LSeg names the pixels of one image at a time",
                expected="the PixelEncoding of one image, such as encoding[0]",
                got=f"{type(encoding).__name__} of {len(encoding)} images",
            )
        return TextPixelScores(
            embeddings=encoding.embeddings[0],
            text=text,
            scale=self.config.logit_scale,
            align_corners=True,
            refine=self.block,
            reach=self.config.applications,
        )

    def _check(self, features: Features) -> None:
        for stage, channels in zip(self.config.stages, self.config.stage_channels, strict=True):
            found = features.maps.get(stage)
            if found is None or found.shape[1] != channels:
                raise InvalidParameter(
                    "The backbone does not fit this head",
                    field=stage,
                    expected=f"{channels} channels in stage {stage}",
                    got="no such stage" if found is None else f"{found.shape[1]} channels",
                    mend="Use the backbone that the head was trained on",
                )


def _pixels(features: Features) -> Tensor:
    if features.images is None:
        raise InvalidParameter(
            "The head looks at pixels, and there are none in these features",
            field="features.images",
            expected="features as the backbone gave them",
        )
    return features.images
