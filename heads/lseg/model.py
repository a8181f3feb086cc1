"""The LSeg head: an embedding for every second pixel; words are multiplied with them at the very end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.lseg.blocks import RegularisationBlock
from heads.lseg.config import LEVELS, LSegConfig
from heads.lseg.decoder import Decoder
from heads.lseg.looks import LookedEncoding, LookedScores, keep_looks
from heads.lseg.losses import LossSettings, apart, pixel_text_loss
from heads.lseg.reading import Reader
from heads.lseg.trunk import VisionTransformer
from heads.lseg.unit_length import unit_length
from ovperception.errors import InvalidParameter
from ovperception.head import Encoding, PixelEncoding, Task, TextPixelScores, one_image
from ovperception.sliding import look_around

if TYPE_CHECKING:
    from ovperception.backbones.base import Backbone, BackboneSpec, Features
    from ovperception.text import TextClassifier
    from ovperception.training.targets import Targets

__all__ = ["LSeg", "LSegEncoding"]


@dataclass(frozen=True)
class LSegEncoding(PixelEncoding):
    """Embeddings of pixels, with all that was learned.

    Attributes:
        frozen: (B, D, h, w), what the frozen CLIP says of them, of unit length; None where the head does not
            weigh the two.
    """

    frozen: Tensor | None = None


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
        self.reader: Reader | None = None
        if config.read is not None:
            self.reader = Reader(config.read, config.features, config.embed_dim)
            # What the decoder says of its own begins at nothing: at first the words are CLIP's.
            nn.init.zeros_(self.decoder.head.weight)
            nn.init.zeros_(cast("Tensor", self.decoder.head.bias))
        self._seen_words = frozenset(config.seen_words)
        self._keeps = config.keeps_frozen
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
        read = settings.get("read")
        if isinstance(read, Mapping):
            settings = {**settings, "read": _dense_facts(backbone) | dict(read)}
            facts["logit_scale"] = min(backbone.logit_scale, 100.0)
        config = LSegConfig.from_dict(facts | {k: v for k, v in settings.items() if k != "stages" or v})
        backbone.check_embed_dim(config.embed_dim)
        return cls(config)

    def encode(self, backbone: Backbone, features: Features) -> LSegEncoding | LookedEncoding:
        """The wordless half.

        Args:
            backbone: The CLIP the features came from.
            features: Maps of B images with the stages `config.stages`; with their pixels if the head has its
                own trunk or more views than one.

        Returns:
            Embeddings at half the size of the network input (`grow` times that of the finest map where the
            head stands on the backbone's maps), or of the views' grid. The corners of the grid are those of
            the network input. With views and blocks that refine logits, those of every window.

        Raises:
            InvalidParameter: Pixels or a stage are missing, a stage has other channels than the head was
                built for, the input is no multiple of the trunk's patch, or its views are too many.
        """
        if self.config.views is None:
            learned, frozen = self.both(features, self.read(backbone, features), plain=self._keeps)
            return LSegEncoding(_pixel_by_pixel(learned), None if frozen is None else _pixel_by_pixel(frozen))
        images = _pixels(features)

        def embed(some: Tensor) -> Tensor:
            looked = self._look(backbone, some)
            found = self.both(looked, self.read(backbone, looked), plain=self._keeps)
            return torch.cat([f for f in found if f is not None], dim=1)

        if self.block is not None:
            return keep_looks(embed, images, self.config.views)
        parts = look_around(embed, images, self.config.views).split(self.config.embed_dim, dim=1)
        return LSegEncoding(*parts)

    def forward(self, features: Features, dense: Sequence[Tensor] = ()) -> Tensor:
        """One look, with gradients: features, and what `read` gave of them -> (B, D, h, w) of unit length."""
        return self.both(features, dense)[0]

    def both(
        self, features: Features, dense: Sequence[Tensor] = (), *, plain: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """`forward`; if `plain`, where the frozen CLIP is read, also without anything learned about words."""
        if self.trunk is None:
            maps = self._maps(features, self.config.stages, self.config.stage_channels)
            if self.reader is None:
                return self.decoder(maps), None
            known = self.decoder.fuse(self.decoder.levels(maps))[-1]
            stages = self.reader.config.stages
            channels = (self.reader.config.channels,) * len(stages)
            cells = self._maps(features, stages, channels)
            learned, frozen = self.reader(known, cells, dense, plain=plain)
            head = self.decoder.head
            said = F.linear(known.permute(0, 2, 3, 1), head.weight.flatten(1), head.bias)
            learned = unit_length(learned + said.permute(0, 3, 1, 2))
            return learned, None if frozen is None else unit_length(frozen)
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
        return self.decoder(tokens, size), None

    def read(self, backbone: Backbone, features: Features) -> tuple[Tensor, ...]:
        """The frozen embeddings (B, D, h, w) of each stage of `LSegConfig.read`; none without it."""
        if self.config.read is None:
            return ()
        stages = self.config.read.stages
        self._maps(features, stages, (self.config.read.channels,) * len(stages))
        # A map of a further scale goes through what the backbone does with its dense stage.
        dense = backbone.dense_stage
        return tuple(backbone.embed_dense(replace(features, maps={dense: features[s]})) for s in stages)

    def _maps(self, features: Features, stages: Sequence[str], channels: Sequence[int]) -> list[Tensor]:
        features.check(stages, channels)
        return [features[stage].to(self.decoder.head.weight.dtype) for stage in stages]

    def _look(self, backbone: Backbone, images: Tensor) -> Features:
        from ovperception.backbones.base import Features

        if self.trunk is None:
            return backbone.features(images)
        return Features(maps={}, image_size=(images.shape[2], images.shape[3]), images=images)

    def losses(
        self, backbone: Backbone, features: Features, targets: list[Targets], text: TextClassifier
    ) -> dict[str, Tensor]:
        """Named, weighted losses of a batch; `loss_settings` holds weights and sampling."""
        settings = self.loss_settings
        plain = settings.frozen > 0 or settings.keep > 0
        embeddings, frozen = self.both(features, self.read(backbone, features), plain=plain)

        def entropy(of: Tensor) -> Tensor:
            size, whole_maps = features.image_size, self.block is not None
            return pixel_text_loss(self.logits, of, targets, text, size, settings, whole_maps=whole_maps)

        found = {"pixel": settings.weight * entropy(embeddings)}
        if frozen is not None and settings.frozen:
            found["frozen"] = settings.frozen * entropy(frozen)
        if frozen is not None and settings.keep:
            found["keep"] = settings.keep * apart(embeddings, frozen)
        return found

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
        encoding = one_image(encoding, PixelEncoding, "LSeg names the pixels of one image at a time")
        if isinstance(encoding, LookedEncoding):
            assert self.config.views is not None
            return LookedScores(
                embeddings=encoding.embeddings[0],
                text=self._words(text) if self._keeps else text,
                scale=self.config.logit_scale,
                align_corners=True,
                refine=self.block,
                reach=self.config.applications,
                views=self.config.views,
                size=(int(encoding.size[0, 0]), int(encoding.size[0, 1])),
            )
        embeddings, words = self._weighed(encoding, text)
        return TextPixelScores(
            embeddings=embeddings,
            text=words,
            scale=self.config.logit_scale,
            align_corners=True,
            offsets=self._discount(text),
            refine=self.block,
            reach=self.config.applications,
        )

    def _weighed(self, encoding: PixelEncoding, text: TextClassifier) -> tuple[Tensor, TextClassifier]:
        """Both embeddings of a pixel side by side, and words that weigh them as they multiply."""
        frozen = encoding.frozen if isinstance(encoding, LSegEncoding) else None
        if frozen is None:
            return encoding.embeddings[0], text
        both = torch.cat([e[0].permute(1, 2, 0) for e in (encoding.embeddings, frozen)], dim=2)
        return both.permute(2, 0, 1), self._words(text)

    def _words(self, text: TextClassifier) -> TextClassifier:
        """Rows that multiply with both embeddings of a pixel side by side, and so weigh them."""
        shares = torch.where(self._seen(text), self.config.seen_weight, self.config.unseen_weight)
        counts = torch.tensor(text.synonym_counts)
        share = shares.repeat_interleave(counts)[:, None].to(text.embeddings)
        rows = torch.cat((share * text.embeddings, (1 - share) * text.embeddings), dim=1)
        return replace(text, embeddings=rows)

    def _seen(self, text: TextClassifier) -> Tensor:
        """(K,) bool: the class shares a name or synonym, letter by letter, with the training vocabulary."""
        return torch.tensor(
            [not self._seen_words.isdisjoint(c.synonyms) for c in text.vocabulary.classes], dtype=torch.bool
        )

    def _discount(self, text: TextClassifier) -> Tensor | None:
        return -self.config.seen_discount * self._seen(text).float() if self.config.seen_discount else None


def _dense_facts(backbone: BackboneSpec) -> dict[str, Any]:
    if not backbone.stages:
        return {}
    stage, spec = list(backbone.stages.items())[-1]
    return {"stages": [stage], "channels": spec.channels}


def _pixel_by_pixel(maps: Tensor) -> Tensor:
    """The same with all numbers of a pixel side by side, as words are multiplied with them."""
    return maps.contiguous(memory_format=torch.channels_last)


def _pixels(features: Features) -> Tensor:
    if features.images is None:
        raise InvalidParameter(
            "The head looks at pixels, and there are none in these features",
            field="features.images",
            expected="features as the backbone gave them",
        )
    return features.images
