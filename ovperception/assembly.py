"""A bundle's parts put together: the backbone it holds, names or borrows, and its heads.

Every key and shape of the weights must fit the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ovperception.backbones import build_open_clip, from_open_clip, load_backbone
from ovperception.backbones.base import BackboneSpec
from ovperception.backbones.clip import ClipBackbone
from ovperception.bundle import Bundle, read_bundle
from ovperception.catalogue import locate
from ovperception.errors import InvalidCheckpoint
from ovperception.plugins import head_factory

__all__ = ["build_backbone", "build_heads"]


def build_backbone(bundle: Bundle) -> ClipBackbone:
    """The frozen CLIP of a bundle.

    Raises:
        InvalidCheckpoint: Its weights do not fit its card, or it is not the one the heads were trained on.
        UnknownModel, MissingFile: It borrows that of a model which is not here.
    """
    card = bundle.card.backbone
    if card.lender:
        backbone = _lent(bundle)
    elif not card.included:
        backbone = load_backbone(card.name)
    else:
        state = bundle.part("backbone")
        if card.config is None:
            backbone = load_backbone(card.name.partition("/")[0])
            _load_strictly(backbone.model, state, "backbone")
        else:
            model, tokenizer = build_open_clip(card.config)
            _load_strictly(model, state, "backbone")
            backbone = from_open_clip(model, card.name, tokenizer=tokenizer, config=card.config)
    if card.digest and not card.included and card.digest != backbone.spec.digest:
        raise InvalidCheckpoint(
            "The backbone is not the one the heads were trained on",
            field="backbone",
            expected=f"weights of digest {card.digest[:16]}…",
            got=f"{backbone.spec.digest[:16]}…" + (f" in {card.lender!r}" if card.lender else ""),
            mend="Train or convert the bundle again on the backbone that is here now" if card.lender else "",
        )
    return backbone


def build_heads(bundle: Bundle, spec: BackboneSpec) -> dict[str, nn.Module]:
    """The heads of a bundle by name, for a backbone of this `spec`.

    Raises:
        InvalidCheckpoint: Weights are missing, left over or misshaped.
        UnknownHead: A head's package is not installed.
    """
    return {head.name: _head(bundle, head.name, head.config, spec) for head in bundle.card.heads}


def _lent(bundle: Bundle) -> ClipBackbone:
    card = bundle.card.backbone
    lender = read_bundle(locate(card.lender))
    if not lender.card.backbone.included:
        raise InvalidCheckpoint(
            f"{bundle.card.name!r} borrows its backbone from {card.lender!r}, which holds none itself",
            field="backbone",
            expected="a bundle with the weights of its backbone",
            got=lender.card.backbone.name,
        )
    return build_backbone(lender)


def _head(bundle: Bundle, name: str, settings: Mapping[str, Any], spec: BackboneSpec) -> nn.Module:
    head = head_factory(name).from_settings(settings, spec)
    _load_strictly(head, bundle.part(f"head.{name}"), f"head.{name}")
    return head


def _load_strictly(module: nn.Module, state: Mapping[str, Tensor], part: str) -> None:
    """Load weights in the module's own dtype; every key and shape must fit."""
    wanted = module.state_dict()
    missing, extra = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    shaped = [
        f"{key} {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    if missing or extra or shaped:
        parts = {"missing": missing, "unexpected": extra, "misshaped": shaped}
        listed = "; ".join(f"{kind}: {', '.join(keys[:10])}" for kind, keys in parts.items() if keys)
        raise InvalidCheckpoint(
            f"The weights of {part} do not fit its card",
            field=part,
            expected=f"{len(wanted)} tensors",
            got=listed,
            mend="Convert or train the bundle again",
        )
    module.load_state_dict({key: value.to(wanted[key].dtype) for key, value in state.items()})
