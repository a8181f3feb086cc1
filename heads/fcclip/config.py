"""The sizes and constants of an FC-CLIP head; the published ones as functions of literal numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from ovperception.errors import InvalidParameter

__all__ = [
    "PUBLISHED",
    "FCCLIPConfig",
    "convnext_large",
    "r50",
    "r50x4",
    "r50x16",
    "r50x64",
    "r101",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FCCLIPConfig:
    """Everything that decides what an FC-CLIP head computes, besides its weights.

    Attributes:
        embed_dim: D of the CLIP space.
        stages: Backbone stages the head reads, finest first.
        stage_channels: Channels of each of `stages`.
        levels: How many of the coarsest stages take part in deformable attention and in the mask decoder;
            the finer ones are merged in by a feature pyramid.
        hidden_dim: Width of both transformers.
        mask_dim: Channels of the per-pixel mask features.
        queries: Q, masks proposed an image.
        attention_heads: Heads of every attention.
        points: Points a deformable attention head looks at on every level.
        encoder_layers: Deformable attention layers in the pixel decoder.
        encoder_ffn: Hidden width of their feed-forward nets.
        decoder_layers: Layers of the mask decoder.
        decoder_ffn: Hidden width of its feed-forward nets.
        clip_logit_scale: Temperature of the CLIP branch, exponentiated; never above 100.
        seen_weight: Weight of the CLIP branch for classes met in training (the paper's alpha).
        unseen_weight: The same for all other classes (beta).
        ensemble_on_valid_mask: Leave the CLIP branch out for masks that cover no cell of its grid.
        min_fragment: Parts of a mask smaller than this share of its largest part are dropped; 0 for none, as
            in the published heads.
        cover_small_masks: Give a mask that covers no centre of a cell the cell it covers most; the published
            heads leave it without one.
        box_share: Weight of a mask's box, read along the backbone's path for boxes, in its CLIP embedding; 0
            for the mask alone, as in the published heads.
        seen_words: Names and synonyms of the training vocabulary; a class is seen if it shares one.
        object_score_threshold: Panoptic: queries at or below it are dropped.
        overlap_threshold: Panoptic: segments of which less than this part stays visible are dropped.
        max_detections: Instances kept an image.
    """

    embed_dim: int
    stages: tuple[str, ...] = ("res2", "res3", "res4", "res5")
    stage_channels: tuple[int, ...]
    levels: int = 3
    hidden_dim: int = 256
    mask_dim: int = 256
    queries: int = 250
    attention_heads: int = 8
    points: int = 4
    encoder_layers: int = 6
    encoder_ffn: int = 1024
    decoder_layers: int = 9
    decoder_ffn: int = 2048
    clip_logit_scale: float = 100.0
    seen_weight: float = 0.4
    unseen_weight: float = 0.8
    ensemble_on_valid_mask: bool = False
    min_fragment: float = 0.0
    cover_small_masks: bool = False
    box_share: float = 0.0
    seen_words: tuple[str, ...] = ()
    object_score_threshold: float = 0.0
    overlap_threshold: float = 0.8
    max_detections: int = 100

    def __post_init__(self) -> None:
        """Refuse sizes that no head can be built from."""
        if len(self.stages) != len(self.stage_channels):
            raise InvalidParameter(
                "Every stage needs its number of channels",
                field="stage_channels",
                expected=f"{len(self.stages)} numbers for {', '.join(self.stages)}",
                got=self.stage_channels,
            )
        if not 1 <= self.levels <= len(self.stages):
            raise InvalidParameter(
                "The head cannot use this many levels",
                field="levels",
                expected=f"1 to {len(self.stages)}",
                got=self.levels,
            )
        if self.mask_dim != self.hidden_dim:
            # The pooled mask features are added to the query state.
            raise InvalidParameter(
                "mask_dim and hidden_dim must agree",
                field="mask_dim",
                expected=str(self.hidden_dim),
                got=self.mask_dim,
            )
        # 4: sine and cosine, each for x and y; 32: groups of the normalisation.
        for divisor in (self.attention_heads, 4, 32):
            if self.hidden_dim % divisor:
                raise InvalidParameter(
                    "hidden_dim does not divide evenly",
                    field="hidden_dim",
                    expected=f"a multiple of 32 and of attention_heads={self.attention_heads}",
                    got=self.hidden_dim,
                )
        for name in ("embed_dim", "queries", "points", "encoder_layers", "decoder_layers", "max_detections"):
            if getattr(self, name) < 1:
                raise InvalidParameter(
                    f"{name} must be positive", field=name, expected="1 or more", got=getattr(self, name)
                )
        for name in (
            "seen_weight",
            "unseen_weight",
            "min_fragment",
            "box_share",
            "object_score_threshold",
            "overlap_threshold",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidParameter(
                    f"{name} is out of range", field=name, expected="0 to 1", got=getattr(self, name)
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for a bundle's model card."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InvalidParameter: A name is not known or one that has no default is missing.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InvalidParameter(
                "Unknown head settings", expected=", ".join(sorted(known)), got=", ".join(unknown)
            )
        missing = sorted({"embed_dim", "stage_channels"} - set(values))
        if missing:
            raise InvalidParameter("Missing head settings", expected=", ".join(missing))
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)


def r50(*, seen_words: tuple[str, ...] = ()) -> FCCLIPConfig:
    """FC-CLIP on OpenAI's RN50."""
    return FCCLIPConfig(
        embed_dim=1024,
        stage_channels=(256, 512, 1024, 2048),
        ensemble_on_valid_mask=True,
        seen_words=seen_words,
    )


def r101(*, seen_words: tuple[str, ...] = ()) -> FCCLIPConfig:
    """FC-CLIP on OpenAI's RN101."""
    return FCCLIPConfig(
        embed_dim=512,
        stage_channels=(256, 512, 1024, 2048),
        ensemble_on_valid_mask=True,
        seen_words=seen_words,
    )


def r50x4(*, seen_words: tuple[str, ...] = ()) -> FCCLIPConfig:
    """FC-CLIP on OpenAI's RN50x4."""
    return FCCLIPConfig(
        embed_dim=640,
        stage_channels=(320, 640, 1280, 2560),
        ensemble_on_valid_mask=True,
        seen_words=seen_words,
    )


def r50x16(*, seen_words: tuple[str, ...] = ()) -> FCCLIPConfig:
    """FC-CLIP on OpenAI's RN50x16."""
    return FCCLIPConfig(
        embed_dim=768,
        stage_channels=(384, 768, 1536, 3072),
        ensemble_on_valid_mask=True,
        seen_words=seen_words,
    )


def r50x64(*, seen_words: tuple[str, ...] = ()) -> FCCLIPConfig:
    """FC-CLIP on OpenAI's RN50x64."""
    return FCCLIPConfig(
        embed_dim=1024,
        stage_channels=(512, 1024, 2048, 4096),
        ensemble_on_valid_mask=True,
        seen_words=seen_words,
    )


def convnext_large(*, seen_words: tuple[str, ...] = ()) -> FCCLIPConfig:
    """FC-CLIP on LAION's ConvNeXt-Large (320 px, `convnext_large_d_320`)."""
    return FCCLIPConfig(
        embed_dim=768,
        stage_channels=(192, 384, 768, 1536),
        ensemble_on_valid_mask=False,
        seen_words=seen_words,
    )


PUBLISHED = {
    "RN50": r50,
    "RN101": r101,
    "RN50x4": r50x4,
    "RN50x16": r50x16,
    "RN50x64": r50x64,
    "convnext_large_d_320": convnext_large,
}
"""open_clip architecture -> the head published for it."""
