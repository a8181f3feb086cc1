"""The FC-CLIP head: masks and two embeddings a mask from a frozen CLIP, words only at the very end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.fcclip.classify import QueryEmbedding, class_logits, combine, seen_classes
from heads.fcclip.config import FCCLIPConfig
from heads.fcclip.losses import LossSettings, set_losses
from heads.fcclip.mask_decoder import MaskDecoder
from heads.fcclip.pixel_decoder import PixelDecoder
from heads.fcclip.proposals import Proposals
from ovperception.backbones.fast_linear import quicken_linears
from ovperception.backbones.regions import mask_boxes, most_covered
from ovperception.head import Encoding, MaskScores, Task, one_image
from ovperception.postprocess.fragments import drop_fragments

if TYPE_CHECKING:
    from ovperception.backbones.base import Backbone, BackboneSpec, Features
    from ovperception.text import TextClassifier
    from ovperception.training.targets import Targets

__all__ = ["FCCLIP", "FCCLIPEncoding"]


@dataclass(frozen=True)
class FCCLIPEncoding(Encoding):
    """Q proposed masks an image, each with two embeddings and no name yet.

    Attributes:
        mask_logits: (B, Q, h, w) on a grid that covers the padded network input.
        query_embeddings: (B, Q, D) of the learned branch, unit length.
        clip_embeddings: (B, Q, D) of the frozen CLIP under the mask, unit length.
        valid: (B, Q) bool, False where the mask covers no cell of the CLIP grid.
    """

    mask_logits: Tensor
    query_embeddings: Tensor
    clip_embeddings: Tensor
    valid: Tensor


class FCCLIP(nn.Module):
    """Panoptic, instance and semantic segmentation with any words, on one frozen CLIP.

    Args:
        config: Sizes and constants.
    """

    tasks: frozenset[Task] = frozenset({"detect", "semantic", "panoptic"})

    def __init__(self, config: FCCLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.pixel_decoder = PixelDecoder(config)
        self.mask_decoder = MaskDecoder(config)
        self.query_embedding = QueryEmbedding(config)
        self.void_embedding = nn.Parameter(torch.randn(config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self._seen_words = frozenset(config.seen_words)
        self.loss_settings = LossSettings()
        quicken_linears(self)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], backbone: BackboneSpec) -> Self:
        """Build a head for a backbone; what `settings` leaves out of the backbone's facts is filled in.

        Args:
            settings: Fields of `FCCLIPConfig`.
            backbone: The CLIP it will stand on.

        Raises:
            InvalidParameter: An unknown setting, or sizes no head can be built from.
        """
        stages = tuple(settings.get("stages", ("res2", "res3", "res4", "res5")))
        facts: dict[str, Any] = {
            "embed_dim": backbone.embed_dim,
            "stage_channels": tuple(backbone.stages[s].channels for s in stages if s in backbone.stages),
            "clip_logit_scale": min(backbone.logit_scale, 100.0),
            "ensemble_on_valid_mask": backbone.family == "resnet",
        }
        return cls(FCCLIPConfig.from_dict(facts | dict(settings)))

    def encode(self, backbone: Backbone, features: Features) -> FCCLIPEncoding:
        """The wordless half.

        Args:
            backbone: The CLIP the features came from; embeds the masks.
            features: Maps of B images, with the stages `config.stages` and the backbone's dense stage.

        Returns:
            The encoding of B images.

        Raises:
            InvalidParameter: A stage is missing or has other channels than the head was built for.
        """
        features.check(self.config.stages, self.config.stage_channels)
        mask_features, levels = self.pixel_decoder(features.maps)
        mask_logits, state = self.mask_decoder(mask_features, levels)
        if self.config.min_fragment > 0:
            mask_logits = drop_fragments(mask_logits, self.config.min_fragment)
        return self.embed(backbone, features, mask_features, mask_logits, state)

    def embed(
        self,
        backbone: Backbone,
        features: Features,
        mask_features: Tensor,
        mask_logits: Tensor,
        state: Tensor,
    ) -> FCCLIPEncoding:
        """The last step of `encode`: both embeddings of every mask.

        Args:
            backbone: Embeds the masks.
            features: Maps of B images.
            mask_features: (B, mask_dim, h, w) of the pixel decoder.
            mask_logits: (B, Q, h, w) of the mask decoder.
            state: (B, Q, dim) of the mask decoder.
        """
        height, width = features[backbone.dense_stage].shape[-2:]
        grid = (height, width)
        inside = F.interpolate(mask_logits, size=grid, mode="bilinear", align_corners=False) > 0
        if self.config.cover_small_masks:
            inside |= ~inside.flatten(2).any(-1)[..., None, None] & most_covered(mask_logits > 0, grid)
        clip = F.normalize(backbone.embed_masks(features, inside).float(), dim=-1)
        if self.config.box_share > 0:
            boxes = mask_boxes(mask_logits > 0, features.image_size)
            by_box = F.normalize(backbone.embed_boxes(features, boxes.unbind()).float(), dim=-1)
            clip = F.normalize(torch.lerp(clip, by_box.view_as(clip), self.config.box_share), dim=-1)
        return FCCLIPEncoding(
            mask_logits=mask_logits,
            query_embeddings=self.query_embedding(mask_features, mask_logits, state),
            clip_embeddings=clip,
            valid=inside.flatten(2).any(dim=-1),
        )

    def propose(self, features: Features) -> Proposals:
        """For training: what every decoder layer proposes, the last one last.

        Args:
            features: Maps of B images.

        Returns:
            `decoder_layers + 1` results for each image.

        Raises:
            InvalidParameter: A stage is missing or has other channels than the head was built for.
        """
        features.check(self.config.stages, self.config.stage_channels)
        mask_features, levels = self.pixel_decoder(features.maps)
        mask_logits, states = self.mask_decoder.forward_layers(mask_features, levels)
        # All layers at once: each product would otherwise add a gradient of its own to the mask features.
        embeddings = self.query_embedding(mask_features, mask_logits.flatten(1, 2), states.flatten(1, 2))
        return Proposals(
            mask_logits=mask_logits,
            mask_embeddings=self.mask_decoder.mask_embedding(states),
            mask_features=mask_features,
            query_embeddings=embeddings.unflatten(1, states.shape[1:3]),
        )

    def forward(self, features: Features) -> Proposals:
        """`propose`, so that wrappers for parallel training see one call."""
        return self.propose(features)

    def losses(
        self, backbone: Backbone, features: Features, targets: list[Targets], text: TextClassifier
    ) -> dict[str, Tensor]:
        """Named, weighted losses of a batch, over all decoder layers; `loss_settings` holds the weights."""
        return set_losses(self, self.propose(features), targets, text, self.loss_settings)

    def class_logits(self, query_embeddings: Tensor, text: TextClassifier) -> Tensor:
        """The learned branch alone, as it is trained: (..., Q, D) -> (..., Q, K + 1) logits, "void" last."""
        flat = query_embeddings.flatten(0, -2)
        with torch.autocast(flat.device.type, enabled=False):  # the scale would magnify what is rounded off
            logits = class_logits(flat.float(), self._void(), text, self._scale())
        return logits.view(*query_embeddings.shape[:-1], -1)

    @torch.no_grad()
    def classify(self, encoding: Encoding, text: TextClassifier) -> MaskScores:
        """The word half: one image against its own words; never with gradients (train on `class_logits`).

        Args:
            encoding: Of one image (leading dimension 1), from `encode`.
            text: K classes.

        Returns:
            Probabilities (Q, K + 1), "void" last, and the mask logits.

        Raises:
            InvalidParameter: More than one image, or the encoding of another head.
        """
        encoding = one_image(encoding, FCCLIPEncoding, "FC-CLIP names the masks of one image at a time")
        learned = class_logits(encoding.query_embeddings[0], self._void(), text, self._scale())
        clip = self.config.clip_logit_scale * encoding.clip_embeddings[0]
        clip_logits = text.reduce(clip @ text.embeddings.to(clip).T)
        seen = seen_classes(text, self._seen_words).to(learned.device)
        valid = encoding.valid[0] if self.config.ensemble_on_valid_mask else None
        probabilities = combine(learned, clip_logits, seen, valid, config=self.config)
        return MaskScores(probabilities=probabilities, mask_logits=encoding.mask_logits[0])

    def _void(self) -> Tensor:
        return F.normalize(self.void_embedding, dim=-1)

    def _scale(self) -> Tensor:
        return self.logit_scale.exp().clamp(max=100)
