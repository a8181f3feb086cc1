"""Names, configurations and weight files to frozen backbones."""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_checkpoint, load_state_dict
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import nn

from ovperception.backbones.clip import ClipBackbone, Trunk
from ovperception.backbones.convnext import ConvNeXtTrunk, is_convnext
from ovperception.backbones.pyramid import PyramidTrunk
from ovperception.backbones.resnet import ResNetTrunk
from ovperception.backbones.text_only import NoImageTower, TextOnlyTrunk
from ovperception.backbones.text_tower import text_tower
from ovperception.backbones.tokenizer import TruncatedBPE, as_tokenizer
from ovperception.backbones.vit import ViTTrunk
from ovperception.errors import (
    InvalidCheckpoint,
    InvalidParameter,
    MissingFile,
    Unavailable,
    UnknownModel,
    Unsupported,
)

__all__ = ["build_open_clip", "check_backbone_name", "from_open_clip", "load_backbone"]

_log = logging.getLogger(__name__)

COVERED = (
    "convnext (such as convnext_base_w, convnext_large_d_320), resnet (such as RN50, RN50x4), "
    "vit (open_clip's own, such as ViT-B-16, ViT-L-14-336)"
)
_EXTRA_KEYS = ("preprocess_cfg", "tokenizer", "custom_text", "pyramid", "image_tower")
_MODEL_KEYS = (
    "embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "init_logit_bias",
    "nonscalar_logit_scale",
)  # fmt: skip
_OPENAI_MARKS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Entries only OpenAI's own archives carry beside their weights."""


def load_backbone(
    name: str,
    *,
    weights: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    quick_gelu: bool | None = None,
) -> ClipBackbone:
    """Builds a frozen backbone by name.

    Args:
        name: ``open_clip:ARCH`` or ``open_clip:ARCH/PRETRAINED``. With a tag and no `weights`, open_clip
            fetches the published weights into its own cache; without a tag and `weights` they are
            open_clip's random initialisation.
        weights: A state dict of the whole CLIP, ``.safetensors`` or a pickle read with ``weights_only=True``.
        device: Where to put it.
        dtype: Type of weights and maps.
        quick_gelu: Activation of the transformers. Default: what the tag or the architecture says, and
            QuickGELU for files with the marks of OpenAI's own archives.

    Raises:
        UnknownModel: No such architecture or tag.
        Unsupported: A family whose dense features are not covered.
        MissingFile: `weights` does not exist.
        InvalidCheckpoint: The file does not fit the architecture.
        Unavailable: The published weights cannot be fetched.
    """
    arch, _, tag = _parse(name)
    config = _architecture(arch)
    pretrained = _pretrained(arch, tag) if tag else {}
    _refuse_uncovered(config)
    if weights is not None and not weights.is_file():
        raise MissingFile("No such weight file", field="weights", got=weights)
    if quick_gelu is None:
        quick_gelu = bool(config.get("quick_gelu")) or bool(pretrained.get("quick_gelu"))
        if not quick_gelu and weights is not None and _has_openai_marks(weights):
            _log.warning("%s is one of OpenAI's archives: building it with QuickGELU", weights.name)
            quick_gelu = True
    config["quick_gelu"] = quick_gelu
    statistics = {k: list(pretrained[k]) for k in ("mean", "std") if pretrained.get(k)}
    if statistics:
        config["preprocess_cfg"] = statistics
    model, tokenizer = build_open_clip(config)
    path = weights if weights is not None else _download(arch, tag, pretrained) if tag else None
    if path is not None:
        _load(model, path)
    backbone = from_open_clip(model, name, tokenizer=tokenizer, config=config)
    return backbone.to(device=device, dtype=dtype)


def check_backbone_name(name: str) -> None:
    """Refuses a name that `load_backbone` would refuse, and builds nothing.

    Raises:
        UnknownModel: No such architecture or tag.
        Unsupported: A family whose dense features are not covered.
    """
    arch, _, tag = _parse(name)
    config = _architecture(arch)
    if tag:
        _pretrained(arch, tag)
    _refuse_uncovered(config)


def build_open_clip(config: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """Builds an open_clip model and its tokenizer, randomly initialised and trainable.

    Args:
        config: An open_clip model configuration (``embed_dim``, ``vision_cfg``, ``text_cfg``, ...), or a
            file of theirs that holds one under ``model_cfg``. Beside it may stand ``preprocess_cfg``
            (``mean``, ``std``), ``pyramid`` (see `from_open_clip`), ``image_tower``: false leaves it out
            (`ovperception.backbones.text_only`), and ``tokenizer``: ``{"kind": "clip_bpe", "merges": N}``,
            which needs a ``vocab_size`` of 514 + N.

    Returns:
        ``open_clip.model.CLIP`` (`CustomTextCLIP` where ``custom_text`` says so) and an open_clip tokenizer.

    Raises:
        InvalidParameter: Unknown or missing keys, or a vocabulary size that is not the tokenizer's.
        Unsupported: A family whose dense features are not covered.
        Unavailable: The tokenizer's files cannot be fetched.
    """
    merged = copy.deepcopy(dict(config))
    merged = {**merged.pop("model_cfg", {}), **merged}
    unknown = [k for k in merged if k not in (*_MODEL_KEYS, *_EXTRA_KEYS, "multimodal_cfg")]
    missing = [k for k in ("embed_dim", "vision_cfg", "text_cfg") if k not in merged]
    if unknown or missing:
        raise InvalidParameter(
            "Not an open_clip configuration",
            field="config",
            expected=", ".join((*_MODEL_KEYS, *_EXTRA_KEYS)),
            got=f"unknown {unknown}, missing {missing}",
        )
    _refuse_uncovered(merged)
    text_cfg = merged["text_cfg"]
    tokenizer = _build_tokenizer(text_cfg, merged.get("tokenizer"))
    kind = CustomTextCLIP if merged.get("custom_text") else CLIP
    model: nn.Module = kind(**{k: v for k, v in merged.items() if k in _MODEL_KEYS})
    if merged.get("image_tower") is False:
        model.visual = NoImageTower(_image_side(merged["vision_cfg"]))
    preprocess = merged.get("preprocess_cfg") or {}
    open_clip.model.set_model_preprocess_cfg(
        model,
        {
            "mean": tuple(preprocess.get("mean") or open_clip.OPENAI_DATASET_MEAN),
            "std": tuple(preprocess.get("std") or open_clip.OPENAI_DATASET_STD),
        },
    )
    return model, tokenizer


def from_open_clip(
    model: nn.Module,
    name: str,
    *,
    tokenizer: Any = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    config: Mapping[str, Any] | None = None,
) -> ClipBackbone:
    """Freezes an open_clip model that is already built and loaded.

    Args:
        model: `CLIP` or `CustomTextCLIP`; it is frozen in place.
        name: As `BackboneSpec.name`.
        tokenizer: Default: CLIP's, which needs a vocabulary of 49,408.
        mean: Default: what open_clip noted on the model, else OpenAI's.
        std: Likewise.
        config: The configuration it was built from, kept as `ClipBackbone.config`. Its ``pyramid``, a list of
            factors such as ``[2, 4]``, makes large regions be read from the picture shrunk by one of them.

    Raises:
        Unsupported: A family whose dense features are not covered.
        InvalidParameter: No tokenizer given for a vocabulary that is not CLIP's, or a pyramid that is none or
            has no image tower to look through.
    """
    trunk = _trunk(model)
    if config is not None and config.get("pyramid"):
        trunk = _at_several_sizes(trunk, config["pyramid"])
    tower = text_tower(model)
    length = int(tower.context_length)
    if tokenizer is None:
        size = tower.token_embedding.num_embeddings
        if size != TruncatedBPE().vocab_size:
            raise InvalidParameter(
                "A tokenizer must be given for this text tower",
                field="tokenizer",
                expected="a vocabulary of 49408 for CLIP's own",
                got=size,
            )
        tokenizer = SimpleTokenizer(context_length=length)
    noted = getattr(model.visual, "preprocess_cfg", None) or {}
    return ClipBackbone(
        model,
        trunk=trunk,
        tokenizer=as_tokenizer(tokenizer, length),
        name=name,
        mean=_three(mean or noted.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        std=_three(std or noted.get("std") or open_clip.OPENAI_DATASET_STD),
        config=config,
    )


def _at_several_sizes(trunk: Trunk, factors: Any) -> PyramidTrunk:
    if isinstance(trunk, TextOnlyTrunk):
        raise InvalidParameter(
            "A CLIP without its image tower looks at no pyramid",
            field="config.pyramid",
            expected='no pyramid beside "image_tower": false',
            got=factors,
            mend='Leave out "pyramid", or keep the image tower',
        )
    numbers = isinstance(factors, list | tuple) and all(
        isinstance(factor, int | float) and not isinstance(factor, bool) for factor in factors
    )
    if not numbers:
        raise InvalidParameter(
            "The pyramid is no list of factors",
            field="config.pyramid",
            expected="numbers above 1, each above the one before, such as [2, 4]",
            got=factors,
        )
    return PyramidTrunk(trunk, factors)


def _image_side(vision_cfg: Mapping[str, Any]) -> int:
    size = vision_cfg.get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def _parse(name: str) -> tuple[str, str, str]:
    prefix, colon, rest = name.partition(":")
    if prefix != "open_clip" or not colon or not rest:
        raise UnknownModel(
            "Unknown backbone",
            field="backbone",
            expected="open_clip:ARCH or open_clip:ARCH/PRETRAINED, such as open_clip:RN50/openai",
            got=name,
        )
    return rest.partition("/")


def _architecture(arch: str) -> dict[str, Any]:
    config: dict[str, Any] | None = open_clip.get_model_config(arch) if ":" not in arch else None
    if config is None:
        close = difflib.get_close_matches(arch, open_clip.list_models(), n=5, cutoff=0.4)
        raise UnknownModel(
            "open_clip has no such architecture",
            field="backbone",
            expected=f"one of open_clip.list_models(), such as {', '.join(close or ['RN50', 'ViT-B-16'])}",
            got=arch,
        )
    return config


def _pretrained(arch: str, tag: str) -> dict[str, Any]:
    found: dict[str, Any] = get_pretrained_cfg(arch, tag)
    if not found:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise UnknownModel(
            f"open_clip has no such weights for {arch}",
            field="backbone",
            expected=", ".join(tags) or "no tag: none are published for it",
            got=tag,
        )
    return found


def _download(arch: str, tag: str, pretrained: dict[str, Any]) -> Path:
    try:
        return Path(download_pretrained(pretrained))
    except Exception as error:  # urllib, huggingface_hub and their transports share no base class
        raise Unavailable(
            f"The weights {arch}/{tag} could not be fetched",
            got=f"{type(error).__name__}: {error}",
            mend="Connect to the network once, or pass weights= with a file that is already here",
        ) from error


def _read(path: Path) -> Mapping[str, Any]:
    try:
        state: Mapping[str, Any] = load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:  # torch, pickle, zipfile, safetensors: many bases, one meaning
        raise InvalidCheckpoint(
            f"{path.name} cannot be read as weights",
            expected=".safetensors, or a torch file of tensors only",
            got=f"{type(error).__name__}: {error}",
        ) from error
    return state


def _has_openai_marks(path: Path) -> bool:
    return path.suffix != ".safetensors" and set(_read(path)) >= _OPENAI_MARKS


def _load(model: nn.Module, path: Path) -> None:
    try:
        if _has_openai_marks(path):
            model.load_state_dict({k: v for k, v in _read(path).items() if k not in _OPENAI_MARKS})
        else:
            load_checkpoint(model, str(path), strict=True, weights_only=True, device="cpu")
    except InvalidCheckpoint:
        raise
    except Exception as error:
        raise InvalidCheckpoint(
            f"{path.name} does not fit the architecture",
            got=f"{type(error).__name__}: {error}",
            mend="Check that the architecture is the one the weights were trained with",
        ) from error


def _unsupported(what: str) -> Unsupported:
    return Unsupported(
        f"{what} is not covered: where its dense, text-aligned features lie is not implemented",
        field="backbone",
        expected=COVERED,
    )


def _refuse_uncovered(config: Mapping[str, Any]) -> None:
    vision, text = config["vision_cfg"], config["text_cfg"]
    timm_name = vision.get("timm_model_name") or ""
    if "multimodal_cfg" in config:
        raise _unsupported("CoCa")
    if timm_name and not timm_name.startswith("convnext"):
        raise _unsupported(f"The trunk {timm_name!r}")
    if text.get("hf_model_name") or text.get("embed_cls"):
        raise _unsupported(f"The text tower {text.get('hf_model_name') or 'with an appended class token'!r}")
    if vision.get("attentional_pool"):
        raise _unsupported("Attentional pooling")


def _build_tokenizer(text_cfg: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> Any:
    length = int(text_cfg.get("context_length", 77))
    size = int(text_cfg.get("vocab_size", 49408))
    if wanted is not None:
        if wanted.get("kind") != "clip_bpe" or set(wanted) - {"kind", "merges"}:
            raise InvalidParameter(
                "Unknown tokenizer",
                field="config.tokenizer",
                expected='{"kind": "clip_bpe", "merges": N}',
                got=dict(wanted),
            )
        tokenizer = TruncatedBPE(int(wanted.get("merges", 48_894)), length)
        if tokenizer.vocab_size != size:
            raise InvalidParameter(
                "Tokenizer and text tower disagree",
                field="config.text_cfg.vocab_size",
                expected=f"{tokenizer.vocab_size} = 514 + merges",
                got=size,
            )
        return tokenizer
    kwargs = dict(text_cfg.get("tokenizer_kwargs") or {})
    if hf_name := text_cfg.get("hf_tokenizer_name"):
        try:
            return HFTokenizer(
                hf_name, context_length=length, tokenizer_mode=text_cfg.get("tokenizer_mode"), **kwargs
            )
        except (OSError, ImportError) as error:
            raise Unavailable(
                f"The tokenizer {hf_name!r} could not be fetched",
                got=f"{type(error).__name__}: {error}",
                mend="Connect to the network once, so that it is cached",
            ) from error
    return SimpleTokenizer(context_length=length, **kwargs)


def _trunk(model: nn.Module) -> Trunk:
    visual: Any = model.visual
    tower = text_tower(model)
    if not hasattr(tower, "transformer") or not hasattr(tower, "token_embedding"):
        raise _unsupported(f"The text tower {type(tower).__name__}")
    if isinstance(visual, NoImageTower):
        return TextOnlyTrunk(visual)
    if isinstance(visual, ModifiedResNet):
        return ResNetTrunk(visual)
    if isinstance(visual, VisionTransformer):
        if visual.attn_pool is not None:
            raise _unsupported("Attentional pooling")
        if not isinstance(visual.transformer.resblocks[-1], ResidualAttentionBlock):
            raise _unsupported("A custom attention block")
        return ViTTrunk(visual)
    if is_convnext(visual):
        return ConvNeXtTrunk(visual)
    raise _unsupported(f"The image tower {type(getattr(visual, 'trunk', visual)).__name__}")
