"""Official FC-CLIP checkpoints to ours: every key and shape is checked, nothing is executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from heads.fcclip.config import PUBLISHED, FCCLIPConfig
from heads.fcclip.model import FCCLIP
from ovperception.backbones import build_open_clip
from ovperception.checkpoints import check_entries, read_state_dict
from ovperception.errors import InvalidCheckpoint

__all__ = ["ConvertedCheckpoint", "convert", "convert_state", "official_names"]

_BACKBONE = "backbone.clip_model."
# The loss weights of the training classes and "void"; nothing at inference reads them.
_DROPPED = frozenset({"criterion.empty_weight"})
# Buffers that some releases of the reference keep and others do not; they are constants.
_OPTIONAL = frozenset({"pixel_mean", "pixel_std", f"{_BACKBONE}attn_mask"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedCheckpoint:
    """An official checkpoint taken apart.

    Attributes:
        config: Sizes and constants of the head.
        head_state: State dict of `FCCLIP(config)`.
        backbone_arch: open_clip architecture, with its activation spelled out (``RN50-quickgelu``).
        backbone_state: State dict of that open_clip model: both towers.
    """

    config: FCCLIPConfig
    head_state: dict[str, Tensor]
    backbone_arch: str
    backbone_state: dict[str, Tensor]


def convert(path: str | Path, *, seen_words: tuple[str, ...] = ()) -> ConvertedCheckpoint:
    """Read and convert a checkpoint file.

    Args:
        path: A file of `torch.save`: the state dict, or a dict that holds it as ``model`` or ``state_dict``;
            or the state dict as ``.safetensors``.
        seen_words: Names and synonyms of the vocabulary it was trained with (the checkpoint does not tell).

    Raises:
        MissingFile: There is no such file.
        InvalidCheckpoint: Not a checkpoint, not of FC-CLIP, incomplete, or with something unknown in it.
    """
    return convert_state(read_state_dict(Path(path)), seen_words=seen_words, source=str(path))


def convert_state(
    state: Mapping[str, Tensor], *, seen_words: tuple[str, ...] = (), source: str = "the state dict"
) -> ConvertedCheckpoint:
    """`convert` for a state dict that is already in memory.

    Raises:
        InvalidCheckpoint: As `convert`.
    """
    arch = _infer_architecture(state, source)
    config = PUBLISHED[arch](seen_words=seen_words)
    scale = state.get(f"{_BACKBONE}logit_scale")
    if scale is not None:
        config = replace(config, clip_logit_scale=min(float(scale.float().exp()), 100.0))
    with torch.device("meta"):
        head = FCCLIP(config)
    names = official_names(config)
    expected = {ours: tuple(t.shape) for ours, t in head.state_dict().items()}
    # OpenAI trained with QuickGELU, which the bare architecture names of open_clip do not tell.
    arch = f"{arch}-quickgelu" if arch.startswith("RN") else arch
    check_entries(
        state,
        _wanted(names, expected) | _backbone_shapes(arch),
        what=f"{source} does not fit FC-CLIP",
        optional=_OPTIONAL,
        ignored=_DROPPED,
    )
    head_state = {ours: _take(state[theirs], part, expected[ours]) for ours, (theirs, part) in names.items()}
    backbone = {
        k.removeprefix(_BACKBONE): v
        for k, v in state.items()
        if k.startswith(_BACKBONE) and k not in _OPTIONAL
    }
    return ConvertedCheckpoint(
        config=config, head_state=head_state, backbone_arch=arch, backbone_state=backbone
    )


def official_names(config: FCCLIPConfig) -> dict[str, tuple[str, int | None]]:
    """Our name -> the official name, and which third of it if the official one packs three tensors."""
    names: dict[str, tuple[str, int | None]] = {
        "logit_scale": ("sem_seg_head.predictor.logit_scale", None),
        "void_embedding": ("void_embedding.weight", None),
    }
    for ours, theirs in _pixel_decoder_modules(config) | _mask_decoder_modules(config):
        for kind in ("weight", "bias"):
            names[f"{ours}.{kind}"] = (f"sem_seg_head.{theirs}.{kind}", None)
    for index in range(config.levels, len(config.stages)):
        step = index - config.levels
        for conv in ("lateral", "smooth"):
            del names[f"pixel_decoder.pyramid.{step}.{conv}.bias"]
    names["pixel_decoder.level_embeddings"] = (
        "sem_seg_head.pixel_decoder.transformer.level_embed",
        None,
    )
    predictor = "sem_seg_head.predictor"
    for ours, theirs in (
        ("query_features", "query_feat"),
        ("query_positions", "query_embed"),
        ("level_embeddings", "level_embed"),
    ):
        names[f"mask_decoder.{ours}"] = (f"{predictor}.{theirs}.weight", None)
    for index in range(config.decoder_layers):
        for ours, theirs in (
            ("cross_attention", f"transformer_cross_attention_layers.{index}.multihead_attn"),
            ("self_attention", f"transformer_self_attention_layers.{index}.self_attn"),
        ):
            for third, projection in enumerate(("query", "key", "value")):
                for kind in ("weight", "bias"):
                    names[f"mask_decoder.layers.{index}.{ours}.{projection}.{kind}"] = (
                        f"{predictor}.{theirs}.in_proj_{kind}",
                        third,
                    )
    return names


def _pixel_decoder_modules(config: FCCLIPConfig) -> set[tuple[str, str]]:
    """Pairs of modules with a weight and a bias: our name, the name under ``sem_seg_head``."""
    pairs = {("mask_features", "mask_features")}
    for level in range(config.levels):
        pairs |= {(f"projections.{level}.{part}", f"input_proj.{level}.{part}") for part in (0, 1)}
    for index in range(config.encoder_layers):
        layer = f"transformer.encoder.layers.{index}"
        pairs |= {
            (f"layers.{index}.{ours}", f"{layer}.{theirs}")
            for ours, theirs in (
                ("attention.offsets", "self_attn.sampling_offsets"),
                ("attention.weights", "self_attn.attention_weights"),
                ("attention.values", "self_attn.value_proj"),
                ("attention.output", "self_attn.output_proj"),
                ("attention_norm", "norm1"),
                ("expand", "linear1"),
                ("contract", "linear2"),
                ("ffn_norm", "norm2"),
            )
        }
    steps = len(config.stages) - config.levels
    for step in range(steps):
        number = steps - step  # theirs are numbered from the finest stage, ours from the coarsest
        pairs |= {
            (f"pyramid.{step}.lateral", f"adapter_{number}"),
            (f"pyramid.{step}.lateral_norm", f"adapter_{number}.norm"),
            (f"pyramid.{step}.smooth", f"layer_{number}"),
            (f"pyramid.{step}.smooth_norm", f"layer_{number}.norm"),
        }
    return {(f"pixel_decoder.{ours}", f"pixel_decoder.{theirs}") for ours, theirs in pairs}


def _mask_decoder_modules(config: FCCLIPConfig) -> set[tuple[str, str]]:
    pairs = {
        ("mask_decoder.norm", "decoder_norm"),
        ("query_embedding.pool_norm", "_mask_pooling_proj.0"),
        ("query_embedding.pool_projection", "_mask_pooling_proj.1"),
    }
    for number, name in enumerate(("first", "second", "third")):
        pairs |= {
            (f"mask_decoder.mask_embedding.{name}", f"mask_embed.layers.{number}"),
            (f"query_embedding.mlp.{name}", f"class_embed.layers.{number}"),
        }
    for index in range(config.decoder_layers):
        pairs |= {
            (f"mask_decoder.layers.{index}.{ours}", f"transformer_{theirs}")
            for ours, theirs in (
                ("cross_attention.output", f"cross_attention_layers.{index}.multihead_attn.out_proj"),
                ("cross_norm", f"cross_attention_layers.{index}.norm"),
                ("self_attention.output", f"self_attention_layers.{index}.self_attn.out_proj"),
                ("self_norm", f"self_attention_layers.{index}.norm"),
                ("expand", f"ffn_layers.{index}.linear1"),
                ("contract", f"ffn_layers.{index}.linear2"),
                ("ffn_norm", f"ffn_layers.{index}.norm"),
            )
        }
    return {(ours, f"predictor.{theirs}") for ours, theirs in pairs}


def _infer_architecture(state: Mapping[str, Tensor], source: str) -> str:
    embedding = state.get("void_embedding.weight")
    deepest = state.get("sem_seg_head.pixel_decoder.input_proj.0.0.weight")
    if embedding is None or deepest is None or embedding.ndim != 2 or deepest.ndim != 4:
        raise InvalidCheckpoint(
            f"{source} is no FC-CLIP checkpoint",
            expected="the keys void_embedding.weight and sem_seg_head.pixel_decoder.input_proj.0.0.weight",
            got=f"{len(state)} keys, such as {', '.join(sorted(state)[:3])}",
        )
    channels, embed_dim = int(deepest.shape[1]), int(embedding.shape[1])
    convnext = any(k.startswith(f"{_BACKBONE}visual.trunk.") for k in state)
    for arch, size in PUBLISHED.items():
        config = size()
        fits = (config.stage_channels[-1], config.embed_dim) == (channels, embed_dim)
        if fits and convnext == arch.startswith("convnext"):
            return arch
    known = ", ".join(f"{a} ({c().stage_channels[-1]}, {c().embed_dim})" for a, c in PUBLISHED.items())
    raise InvalidCheckpoint(
        f"{source} is of no published FC-CLIP size",
        expected=f"channels of the deepest stage and embedding size of one of {known}",
        got=f"({channels}, {embed_dim})",
    )


def _wanted(
    names: Mapping[str, tuple[str, int | None]], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Official name -> shape of everything the head needs."""
    wanted: dict[str, tuple[int, ...]] = {}
    for ours, (theirs, part) in names.items():
        shape = expected[ours]
        wanted[theirs] = shape if part is None else (3 * shape[0], *shape[1:])
    wanted["void_embedding.weight"] = (1, *wanted["void_embedding.weight"])
    return wanted


def _backbone_shapes(arch: str) -> dict[str, tuple[int, ...]]:
    config = open_clip.get_model_config(arch)
    assert config is not None, arch
    with torch.device("meta"):
        model, _ = build_open_clip(config)
    return {f"{_BACKBONE}{name}": tuple(t.shape) for name, t in model.state_dict().items()}


def _take(tensor: Tensor, part: int | None, shape: tuple[int, ...]) -> Tensor:
    if part is not None:
        tensor = tensor.chunk(3)[part]
    return tensor.reshape(shape).to(torch.float32).clone()
