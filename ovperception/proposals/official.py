"""The names that detectron2 gives an RPN's weights, and how they become ours.

A checkpoint of the RPN alone has them under ``backbone.`` and ``proposal_generator.``, one of RegionCLIP
under ``offline_backbone.`` and ``offline_proposal_generator.``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor

from ovperception.proposals.resnet50 import STAGES, folded
from ovperception.proposals.rpn import OfflineRPN, RPNSettings, RPNVariant

__all__ = ["ALONE", "OFFLINE", "Prefixes", "convert_rpn", "counters", "official_shapes", "rpn_variant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefixes:
    """Where an RPN's two parts lie in a state dict, with the dot."""

    backbone: str
    generator: str


ALONE: Final = Prefixes(backbone="backbone.", generator="proposal_generator.")
OFFLINE: Final = Prefixes(backbone="offline_backbone.", generator="offline_proposal_generator.")

_NORM = {"scale": "weight", "shift": "bias", "mean": "running_mean", "variance": "running_var"}
_COUNTER = "norm.num_batches_tracked"


def rpn_variant(names: Iterable[str], prefixes: Prefixes = OFFLINE) -> RPNVariant | None:
    """Which variant a state dict of these names holds; None if it holds none."""
    given = set(names)
    if f"{prefixes.generator}rpn_head.objectness_logits.weight" not in given:
        return None
    if f"{prefixes.generator}rpn_head.conv.conv0.weight" in given:
        return "lsj"
    pyramid = any(n.startswith(f"{prefixes.backbone}fpn_") for n in given)
    return "fpn" if pyramid else "c4"


def official_shapes(variant: RPNVariant, prefixes: Prefixes = OFFLINE) -> dict[str, tuple[int, ...]]:
    """Official name -> shape of everything `convert_rpn` reads."""
    shapes: dict[str, tuple[int, ...]] = {}
    ours = _our_shapes(variant)
    for name, (theirs, has_norm) in _convolutions(variant, prefixes).items():
        shapes[f"{theirs}.weight"] = ours[f"{name}.weight"]
        vector = ours[f"{name}.bias"]
        kinds = [f"norm.{kind}" for kind in _NORM.values()] if has_norm else ["bias"]
        shapes |= {f"{theirs}.{kind}": vector for kind in kinds}
    return shapes


def counters(variant: RPNVariant, prefixes: Prefixes = OFFLINE) -> frozenset[str]:
    """Names of what synchronised normalisation counts in training; nothing reads it afterwards."""
    if variant != "lsj":
        return frozenset()
    convolutions = _convolutions(variant, prefixes).values()
    return frozenset(f"{theirs}.{_COUNTER}" for theirs, has_norm in convolutions if has_norm)


def convert_rpn(
    state: Mapping[str, Tensor], variant: RPNVariant, prefixes: Prefixes = OFFLINE
) -> dict[str, Tensor]:
    """The state dict of an `OfflineRPN` of this variant.

    Args:
        state: holds everything of `official_shapes`, in these shapes.
        variant: of `rpn_variant`.
        prefixes: where it lies.

    Returns:
        Float32 tensors; each frozen batch normalisation is folded into its convolution.
    """
    ours: dict[str, Tensor] = {}
    for name, (theirs, has_norm) in _convolutions(variant, prefixes).items():
        weight = state[f"{theirs}.weight"]
        if has_norm:
            norm = {argument: state[f"{theirs}.norm.{kind}"] for argument, kind in _NORM.items()}
            ours[f"{name}.weight"], ours[f"{name}.bias"] = folded(weight, **norm)
        else:
            ours[f"{name}.weight"] = weight.to(torch.float32).clone()
            ours[f"{name}.bias"] = state[f"{theirs}.bias"].to(torch.float32).clone()
    return ours


@cache
def _our_shapes(variant: RPNVariant) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        rpn = OfflineRPN(RPNSettings(variant=variant), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return {name: tuple(tensor.shape) for name, tensor in rpn.state_dict().items()}


def _convolutions(variant: RPNVariant, prefixes: Prefixes) -> dict[str, tuple[str, bool]]:
    """Our convolution -> the official one, and whether a normalisation follows it there."""
    head = f"{prefixes.generator}rpn_head"
    trunk = f"{prefixes.backbone}{'' if variant == 'c4' else 'bottom_up.'}"
    found = {
        "head.objectness": (f"{head}.objectness_logits", False),
        "head.deltas": (f"{head}.anchor_deltas", False),
        "trunk.stem": (f"{trunk}stem.conv1", True),
    }
    hidden = ("conv.conv0", "conv.conv1") if variant == "lsj" else ("conv",)
    found |= {f"head.hidden.{i}": (f"{head}.{name}", False) for i, name in enumerate(hidden)}
    for ours, theirs in (("lateral", "fpn_lateral"), ("smooth", "fpn_output")):
        levels = range(0 if variant == "c4" else 4)
        found |= {
            f"pyramid.{ours}.{i}": (f"{prefixes.backbone}{theirs}{i + 2}", variant == "lsj") for i in levels
        }
    kinds = {"reduce": "conv1", "spatial": "conv2", "expand": "conv3", "shortcut": "shortcut"}
    for name in _our_shapes(variant):
        if name.startswith("trunk.stages.") and name.endswith(".weight"):
            _, _, stage, block, kind, _ = name.split(".")
            ours = name.removesuffix(".weight")
            found[ours] = (f"{trunk}{STAGES[int(stage)]}.{block}.{kinds[kind]}", True)
    return found
