"""Official LSeg checkpoints for `ovp convert`: every key and shape is checked, nothing is executed.

They are files of PyTorch Lightning: the network's tensors lie under ``state_dict`` with the prefix ``net.``.
The CLIP in them is whole and mostly in float16; its image tower is left out, because nothing reads it, and so
are the trunk's final norm and classifier and the residual unit that the coarsest fusion block never runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from torch import Tensor

from heads.lseg.config import LSegConfig, vit_large_16_384
from heads.lseg.model import LSeg
from ovperception.backbones import build_open_clip
from ovperception.catalogue import entry
from ovperception.checkpoints import check_entries, read_content, read_state_dict
from ovperception.conversion import Companions, Converted
from ovperception.errors import InvalidCheckpoint

if TYPE_CHECKING:
    from ovperception.vocabulary import Vocabulary

__all__ = ["ConvertedCheckpoint", "convert", "convert_state", "official_name", "text_only_config"]

_CLIP, _TRUNK, _SCRATCH = "net.clip_pretrained.", "net.pretrained.", "net.scratch."
_BLOCK = f"{_SCRATCH}head_block.depthwise.depthwise."
_ARCH = "ViT-B-32-quickgelu"
_ENTRY = "lseg-vitl16"

_RENAMED = (
    (r"^trunk\.patch_embed\.", f"{_TRUNK}model.patch_embed.proj."),
    (r"^trunk\.", f"{_TRUNK}model."),
    (r"^decoder\.head\.", f"{_SCRATCH}head1."),
    (r"^block\.conv\.", _BLOCK),
)
_LEVELLED = (
    (r"^decoder\.reassemble\.(\d)\.readout\.", f"{_TRUNK}act_postprocess{{}}.0.project.0."),
    (r"^decoder\.reassemble\.(\d)\.project\.", f"{_TRUNK}act_postprocess{{}}.3."),
    (r"^decoder\.reassemble\.(\d)\.resample\.", f"{_TRUNK}act_postprocess{{}}.4."),
    (r"^decoder\.lateral\.(\d)\.", f"{_SCRATCH}layer{{}}_rn."),
    (r"^decoder\.fusion\.(\d)\.skip\.", f"{_SCRATCH}refinenet{{}}.resConfUnit1."),
    (r"^decoder\.fusion\.(\d)\.refine\.", f"{_SCRATCH}refinenet{{}}.resConfUnit2."),
    (r"^decoder\.fusion\.(\d)\.out\.", f"{_SCRATCH}refinenet{{}}.out_conv."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedCheckpoint:
    """An official checkpoint taken apart.

    Attributes:
        config: of the head.
        head_state: state dict of `LSeg` with this configuration, float32.
        backbone_state: the text tower's, float32.
    """

    config: LSegConfig
    head_state: dict[str, Tensor]
    backbone_state: dict[str, Tensor]


def convert(path: Path, *, vocabulary: Vocabulary | None, companions: Companions) -> Converted:
    """Read an official LSeg checkpoint: a file of Lightning, or its state dict as ``.safetensors``.

    Args:
        path: the file.
        vocabulary: not needed; the head knows no words.
        companions: none; the file is whole.

    Raises:
        InvalidParameter: a companion was given.
        MissingFile: there is no such file.
        InvalidCheckpoint: not a checkpoint, not of LSeg, incomplete, or with something unknown in it.
    """
    companions.refuse("LSeg")
    parts = convert_state(read_state_dict(path), settings=_settings(path), source=path.name)
    return Converted(
        about=entry(_ENTRY),
        head_settings=parts.config.to_dict(),
        head_state=parts.head_state,
        backbone_state=parts.backbone_state,
        keys_read=len(parts.head_state) + len(parts.backbone_state),
        backbone_config=text_only_config(),
    )


def convert_state(
    state: Mapping[str, Tensor],
    *,
    settings: Mapping[str, Any] | None = None,
    source: str = "the state dict",
) -> ConvertedCheckpoint:
    """`convert` for a state dict that is already in memory.

    Args:
        state: the official names.
        settings: ``arch_option``, ``block_depth`` and ``activation`` it was trained with; its tensors tell
            only whether there are blocks, and not of which kind.
        source: what to call it in errors.

    Raises:
        InvalidCheckpoint: as `convert`.
    """
    if f"{_TRUNK}model.pos_embed" not in state or f"{_SCRATCH}head1.weight" not in state:
        raise InvalidCheckpoint(
            f"{source} is no LSeg checkpoint",
            expected=f"the keys {_TRUNK}model.pos_embed and {_SCRATCH}head1.weight",
            got=f"{len(state)} keys, such as {', '.join(sorted(state)[:3])}",
        )
    config = _config(state, settings or {}, source)
    with torch.device("meta"):
        head = LSeg(config)
    ours = {name: official_name(name) for name in head.state_dict()}
    wanted = {ours[name]: tuple(value.shape) for name, value in head.state_dict().items()}
    clip = _clip_shapes()
    text = {k: s for k, s in clip.items() if not k.startswith(f"{_CLIP}visual.")}
    dropped = {k: s for k, s in clip.items() if k not in text} | _unused(config, wanted)
    check_entries(
        state,
        wanted | text | dropped,
        what=f"{source} does not fit LSeg",
        mend="Only checkpoints of ViT-L/16 with the text tower of CLIP ViT-B/32 are understood",
        optional=dropped,
    )
    return ConvertedCheckpoint(
        config=config,
        head_state={name: _plain(state[official]) for name, official in ours.items()},
        backbone_state={k.removeprefix(_CLIP): _plain(state[k]) for k in text},
    )


def official_name(name: str) -> str:
    """What the reference calls a parameter or buffer of `LSeg`."""
    for pattern, prefix in _RENAMED:
        if re.match(pattern, name):
            return re.sub(pattern, prefix, name)
    for pattern, prefix in _LEVELLED:
        if found := re.match(pattern, name):
            return prefix.format(int(found[1]) + 1) + name[found.end() :]
    raise AssertionError(name)  # every tensor of a head with its own trunk is named above


def text_only_config() -> dict[str, Any]:
    """The open_clip configuration of the text tower that the published models are aligned with."""
    config = open_clip.get_model_config(_ARCH)
    assert config is not None, _ARCH
    return {**config, "image_tower": False}


def _settings(path: Path) -> Mapping[str, Any]:
    """The hyper-parameters beside the weights, if any: Lightning writes those that a program tells it of."""
    if path.suffix == ".safetensors":
        return {}
    content = read_content(path)
    found = content.get("hyper_parameters") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def _config(state: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> LSegConfig:
    base = LSegConfig(embed_dim=512, trunk=vit_large_16_384())
    if f"{_BLOCK}weight" not in state:
        return base
    if settings.get("arch_option") not in (1, 2):
        raise InvalidCheckpoint(
            f"{source} has blocks after the logits and does not tell of which kind",
            field="hyper_parameters.arch_option",
            expected="1 (bottleneck) or 2 (depthwise), with block_depth and activation",
            got=settings.get("arch_option"),
            mend="The official training does not write them: load it, put them beside its state_dict, as"
            " hyper_parameters={'arch_option': 2, 'block_depth': 1, 'activation': 'lrelu'}, and save it",
        )
    blocks = {k: settings[k] for k in ("arch_option", "block_depth", "activation") if k in settings}
    return LSegConfig.from_dict(base.to_dict() | blocks)


def _clip_shapes() -> dict[str, tuple[int, ...]]:
    config = open_clip.get_model_config(_ARCH)
    assert config is not None, _ARCH
    with torch.device("meta"):
        model, _ = build_open_clip(config)
    return {f"{_CLIP}{name}": tuple(value.shape) for name, value in model.state_dict().items()}


def _unused(config: LSegConfig, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """What official files hold and no forward pass reads."""
    assert config.trunk is not None
    width = config.trunk.width
    third, fourth = f"{_SCRATCH}refinenet3.resConfUnit1.", f"{_SCRATCH}refinenet4.resConfUnit1."
    unused = {k.replace(third, fourth): shape for k, shape in wanted.items() if k.startswith(third)}
    model = f"{_TRUNK}model."
    return unused | {
        f"{model}norm.weight": (width,),
        f"{model}norm.bias": (width,),
        f"{model}head.weight": (1000, width),
        f"{model}head.bias": (1000,),
    }


def _plain(tensor: Tensor) -> Tensor:
    return tensor.float().clone() if tensor.is_floating_point() else tensor.clone()
