"""Official RegionCLIP checkpoints for `ovp convert`: every key and shape is checked, nothing is executed.

Three kinds are told apart by their keys: what pretraining wrote (both towers, the teacher, an RPN, no
classifier), a detector saved for zero-shot inference, and one fine-tuned on COCO or LVIS. The image tower is
a backbone of its own: RegionCLIP trained it.

The official code reads the RPN's checkpoint after the model's, and thereby resets the statistics of all 55
frozen normalisations of the image tower with current torch (microsoft/RegionCLIP issue 67). Here the parts
are merged as tensors by name, so no module ever sees half of them.

Stored class embeddings (``cls_score``, ``test_cls_score``) are left out: words come from the text tower or
from whoever asks, and nothing in a bundle can replace them. So is the embedding of the background, which the
official code sets to zero and never trains.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import open_clip
import torch
from torch import Tensor

from heads.regionclip.config import RegionCLIPConfig
from heads.regionclip.model import RegionCLIP
from heads.regionclip.presets import PRESETS
from ovperception.backbones import build_open_clip, load_backbone
from ovperception.catalogue import CatalogueEntry, entry
from ovperception.checkpoints import check_entries, read_state_dict
from ovperception.conversion import Companions, Converted
from ovperception.errors import InvalidCheckpoint, Unavailable
from ovperception.proposals.official import (
    ALONE,
    OFFLINE,
    convert_rpn,
    counters,
    official_shapes,
    rpn_variant,
)

if TYPE_CHECKING:
    from ovperception.vocabulary import Vocabulary

__all__ = ["ConvertedCheckpoint", "convert", "convert_state"]

_log = logging.getLogger(__name__)

Arch = Literal["RN50", "RN50x4"]
Kind = Literal["zero_shot", "coco_finetuned", "lvis_finetuned"]

_PRESET: Mapping[Kind, str] = {
    "zero_shot": "custom_images",
    "coco_finetuned": "coco_finetuned",
    "lvis_finetuned": "lvis_finetuned",
}
_ENTRY: Mapping[tuple[Kind, Arch], str] = {
    ("zero_shot", "RN50"): "regionclip-rn50",
    ("zero_shot", "RN50x4"): "regionclip-rn50x4",
    ("coco_finetuned", "RN50"): "regionclip-coco-rn50",
    ("coco_finetuned", "RN50x4"): "regionclip-coco-rn50x4",
    ("lvis_finetuned", "RN50"): "regionclip-lvis-rn50",
    ("lvis_finetuned", "RN50x4"): "regionclip-lvis-rn50x4",
}
_WIDTHS: Mapping[tuple[int, ...], Arch] = {(1024, 2048): "RN50", (640, 2560): "RN50x4"}
"""Shape of the attention pool's last projection: (D, channels of the last stage)."""

_IMAGE, _TEXT, _TEACHER = "backbone.", "lang_encoder.", "teacher_backbone."
_PREDICTOR, _MASK = "roi_heads.box_predictor.", "roi_heads.mask_head."
_EMBEDDINGS = (f"{_PREDICTOR}cls_score.weight", f"{_PREDICTOR}test_cls_score.weight")
_BACKGROUND = f"{_PREDICTOR}cls_bg_score.weight"
# Constants that some releases of detectron2 save and others do not.
_CONSTANTS = frozenset({"pixel_mean", "pixel_std"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedCheckpoint:
    """An official checkpoint taken apart.

    Attributes:
        arch: of the image tower.
        kind: what it was saved for.
        config: of the head, with the settings of its proposer.
        head_state: state dict of `RegionCLIP` with this configuration.
        backbone_state: state dict of open_clip's ``{arch}-quickgelu``; without the text tower if the
            checkpoint holds none.
        keys_read: entries of all checkpoints that went into these.
    """

    arch: Arch
    kind: Kind
    config: RegionCLIPConfig
    head_state: dict[str, Tensor]
    backbone_state: dict[str, Tensor]
    keys_read: int


def convert(path: Path, *, vocabulary: Vocabulary | None, companions: Companions) -> Converted:
    """Read an official RegionCLIP checkpoint: a file of `torch.save`, or its state dict as ``.safetensors``.

    Args:
        path: the file.
        vocabulary: not needed; the head knows no words.
        companions: ``rpn`` gives the proposals and goes before an RPN in the checkpoint itself. ``clip``
            gives the text tower where the checkpoint has none, as fine-tuned ones: RegionCLIP's pretrained
            checkpoint, or OpenAI's weights of the same architecture, which are fetched if it is not given.

    Raises:
        MissingFile: there is no such file.
        InvalidCheckpoint: not a checkpoint, not of RegionCLIP, incomplete, or with something unknown in it.
        Unavailable: the text tower is needed, and cannot be fetched.
    """
    rpn = companions.rpn
    parts = convert_state(
        read_state_dict(path),
        rpn_state=None if rpn is None else read_state_dict(rpn),
        source=path.name,
        rpn_source="" if rpn is None else rpn.name,
    )
    backbone, read = parts.backbone_state, parts.keys_read
    if "text_projection" not in backbone:
        text = _text_tower(parts.arch, companions.clip)
        backbone, read = backbone | text, read + len(text)
    return Converted(
        about=_published(parts),
        head_settings=parts.config.to_dict(),
        head_state=parts.head_state,
        backbone_state=backbone,
        keys_read=read,
    )


def _published(parts: ConvertedCheckpoint) -> CatalogueEntry:
    return entry(_ENTRY[parts.kind, parts.arch])


def convert_state(
    state: Mapping[str, Tensor],
    *,
    rpn_state: Mapping[str, Tensor] | None = None,
    source: str = "the state dict",
    rpn_source: str = "the RPN's state dict",
) -> ConvertedCheckpoint:
    """`convert` for state dicts that are already in memory, without looking for a text tower elsewhere.

    Raises:
        InvalidCheckpoint: as `convert`.
    """
    arch = _arch(state, source)
    has_masks = any(key.startswith(_MASK) for key in state)
    kind = _kind(state, has_masks)
    image, text = _clip_shapes(arch)
    offline = rpn_variant(state)
    predictor = _predictor_shapes(arch, state) if any(k.startswith(_PREDICTOR) for k in state) else {}
    masks = _mask_shapes(arch) if has_masks else {}
    wanted = image | predictor | masks
    if any(key.startswith(_TEXT) for key in state):
        wanted |= text
    if any(key.startswith(_TEACHER) for key in state):
        wanted |= {f"{_TEACHER}{k.removeprefix(_IMAGE)}": shape for k, shape in image.items()}
    ignored = set(_CONSTANTS)
    if any(key.startswith((OFFLINE.backbone, OFFLINE.generator)) for key in state):
        wanted |= official_shapes(offline or "fpn", OFFLINE)
        ignored |= counters(offline or "fpn", OFFLINE)
    check_entries(state, wanted, what=f"{source} does not fit RegionCLIP", ignored=ignored)
    _note_background(state, source)

    proposer, head, from_rpn = _proposals(state, rpn_state, rpn_source)
    if kind != "zero_shot":
        head |= {
            f"bbox_pred.{k}": state[f"{_PREDICTOR}bbox_pred.{k}"].float().clone() for k in ("weight", "bias")
        }
    head |= {key.removeprefix("roi_heads."): state[key].float().clone() for key in masks}
    config = _config(arch, kind, proposer, has_masks=has_masks)
    backbone = _backbone_state(arch, state)
    used = [k for k in wanted if k in state and not k.startswith((_TEACHER, *_EMBEDDINGS, _BACKGROUND))]
    if rpn_state is not None:
        used = [k for k in used if not k.startswith((OFFLINE.backbone, OFFLINE.generator))]
    if kind == "zero_shot":
        used = [k for k in used if not k.startswith(_PREDICTOR)]
    return ConvertedCheckpoint(
        arch=arch,
        kind=kind,
        config=config,
        head_state=head,
        backbone_state=backbone,
        keys_read=len(used) + from_rpn,
    )


def _arch(state: Mapping[str, Tensor], source: str) -> Arch:
    if rpn_variant(state, ALONE) is not None:
        raise InvalidCheckpoint(
            f"{source} is the checkpoint of an RPN alone",
            expected="RegionCLIP's own checkpoint, such as regionclip_pretrained-cc_rn50.pth",
            mend="Give this one as --rpn beside it",
        )
    key = f"{_IMAGE}attnpool.c_proj.weight"
    if key not in state:
        raise InvalidCheckpoint(
            f"{source} is no RegionCLIP checkpoint",
            expected=f"the key {key}",
            got=f"{len(state)} keys, such as {', '.join(sorted(state)[:3])}",
        )
    shape = tuple(state[key].shape)
    if shape not in _WIDTHS:
        known = ", ".join(f"{arch} {width}" for width, arch in _WIDTHS.items())
        raise InvalidCheckpoint(
            f"{source} is of no published RegionCLIP size", expected=f"{key} of {known}", got=shape
        )
    return _WIDTHS[shape]


def _kind(state: Mapping[str, Tensor], has_masks: bool) -> Kind:
    variant = rpn_variant(state)
    if has_masks or variant == "lsj":
        return "lvis_finetuned"
    if _EMBEDDINGS[1] in state or variant == "c4":
        return "coco_finetuned"
    return "zero_shot"


def _clip_shapes(arch: Arch) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Official name -> shape of the image tower and of the text tower."""
    shapes = {name: tuple(t.shape) for name, t in _blank_clip(arch).items()}
    image = {
        f"{_IMAGE}{name.removeprefix('visual.')}": shape
        for name, shape in shapes.items()
        if name.startswith("visual.") and not name.endswith("num_batches_tracked")
    }
    return image, {f"{_TEXT}{name}": shapes[name] for name in _text_names(shapes)}


@cache
def _blank_clip(arch: Arch) -> dict[str, Tensor]:
    # OpenAI trained with QuickGELU, which the bare architecture names of open_clip do not tell.
    config = open_clip.get_model_config(f"{arch}-quickgelu")
    assert config is not None, arch
    with torch.device("meta"):
        model, _ = build_open_clip(config)
    blank: dict[str, Tensor] = model.state_dict()
    return blank


def _text_names(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith("visual.") and name != "logit_scale"]


def _backbone_state(arch: Arch, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Both towers under open_clip's names, as far as the checkpoint holds them."""
    backbone: dict[str, Tensor] = {}
    for name in _blank_clip(arch):
        is_image = name.startswith("visual.")
        theirs = f"{_IMAGE}{name.removeprefix('visual.')}" if is_image else f"{_TEXT}{name}"
        if name == "logit_scale":
            # RegionCLIP has a constant temperature of 0.01, which is where CLIP's own ended.
            backbone[name] = torch.tensor(math.log(100))
        elif name.endswith("num_batches_tracked"):
            backbone[name] = torch.tensor(0)
        elif theirs in state:
            backbone[name] = state[theirs]
    return backbone


def _predictor_shapes(arch: Arch, state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The classifiers are of any number of classes: nothing is read from them."""
    width = _width(arch)
    shapes = {
        f"{_PREDICTOR}bbox_pred.weight": (4, width),
        f"{_PREDICTOR}bbox_pred.bias": (4,),
        _BACKGROUND: (1, width),
        _EMBEDDINGS[0]: (len(state.get(_EMBEDDINGS[0], ())), width),
    }
    if _EMBEDDINGS[1] in state:
        shapes[_EMBEDDINGS[1]] = (len(state[_EMBEDDINGS[1]]), width)
    return shapes


def _mask_shapes(arch: Arch) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        head = RegionCLIP(RegionCLIPConfig(embed_dim=8, masks=True, region_channels=_channels(arch)))
    return {
        f"roi_heads.{name}": tuple(t.shape)
        for name, t in head.state_dict().items()
        if name.startswith("mask_head.")
    }


def _width(arch: Arch) -> int:
    return next(width for (width, _), name in _WIDTHS.items() if name == arch)


def _channels(arch: Arch) -> int:
    return next(channels for (_, channels), name in _WIDTHS.items() if name == arch)


def _note_background(state: Mapping[str, Tensor], source: str) -> None:
    background = state.get(_BACKGROUND)
    if background is not None and bool(background.any()):
        _log.warning(
            "%s has a background embedding (%s) that is not zero, as it always is; it is left out",
            source,
            _BACKGROUND,
        )


def _proposals(
    state: Mapping[str, Tensor], rpn_state: Mapping[str, Tensor] | None, rpn_source: str
) -> tuple[str | None, dict[str, Tensor], int]:
    """Variant, weights and number of entries read from the RPN's own file."""
    if rpn_state is None:
        offline = rpn_variant(state)
        found = {} if offline is None else convert_rpn(state, offline, OFFLINE)
        return offline, {f"proposer.{k}": v for k, v in found.items()}, 0
    variant = rpn_variant(rpn_state, ALONE)
    if variant is None:
        raise InvalidCheckpoint(
            f"{rpn_source} holds no RPN",
            field="rpn",
            expected=f"the key {ALONE.generator}rpn_head.objectness_logits.weight",
            got=f"{len(rpn_state)} keys, such as {', '.join(sorted(rpn_state)[:3])}",
        )
    # The detector that was trained with it is not needed.
    own = {k: v for k, v in rpn_state.items() if k.startswith((ALONE.backbone, ALONE.generator))}
    shapes = official_shapes(variant, ALONE)
    what = f"{rpn_source} does not fit an RPN ({variant})"
    check_entries(own, shapes, what=what, ignored=counters(variant, ALONE))
    found = convert_rpn(own, variant, ALONE)
    return variant, {f"proposer.{k}": v for k, v in found.items()}, len(shapes)


def _config(arch: Arch, kind: Kind, proposer: str | None, *, has_masks: bool) -> RegionCLIPConfig:
    preset = PRESETS[_PRESET[kind]]
    settings: dict[str, Any] = preset.head_settings() | {
        "embed_dim": _width(arch),
        "region_channels": _channels(arch),
        "masks": has_masks,
        "proposer": None if proposer is None else preset.proposer_settings() | {"variant": proposer},
    }
    return RegionCLIPConfig.from_dict(settings)


def _text_tower(arch: Arch, path: Path | None) -> dict[str, Tensor]:
    """The text half of the original CLIP, under open_clip's names."""
    blank = _blank_clip(arch)
    names = _text_names(blank)
    if path is not None:
        state = _region_clip_text(path)
        if state:
            wanted = {f"{_TEXT}{name}": tuple(blank[name].shape) for name in names}
            what = f"The text tower of {path.name} does not fit {arch}"
            check_entries(state, wanted, what=what)
            return {name: state[f"{_TEXT}{name}"] for name in names}
    try:
        model = load_backbone(f"open_clip:{arch}-quickgelu{'' if path else '/openai'}", weights=path).model
    except Unavailable as error:
        raise Unavailable(
            f"The checkpoint has no text tower, and CLIP's own ({arch}) could not be fetched",
            field="clip",
            got=error.got or None,
            mend=f"Give it with --clip: OpenAI's {arch}.pt, or regionclip_pretrained-cc_{arch.lower()}.pth",
        ) from error
    loaded = model.state_dict()
    return {name: loaded[name] for name in names}


def _region_clip_text(path: Path) -> dict[str, Tensor]:
    """What a RegionCLIP checkpoint has of it; nothing if the file is something else."""
    try:
        state = read_state_dict(path)
    except InvalidCheckpoint:  # such as OpenAI's archives, which open_clip knows how to read
        return {}
    return {key: value for key, value in state.items() if key.startswith(_TEXT)}
