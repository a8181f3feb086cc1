"""Boxes for region heads to look into: one contract (`Proposer`), found by the kind in its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ovperception.errors import InvalidParameter
from ovperception.proposals.base import Proposals, Proposer, TrainableProposer

if TYPE_CHECKING:
    from torch import nn

    from ovperception.backbones.base import BackboneSpec

__all__ = ["KINDS", "Proposals", "Proposer", "TrainableProposer", "build_proposer"]

KINDS = ("rpn", "clip-rpn")
"""What ``settings["kind"]`` may be."""


def build_proposer(settings: Mapping[str, Any], backbone: BackboneSpec) -> nn.Module:
    """Build an untrained proposer.

    Args:
        settings: ``kind`` and what that kind is configured by, in plain JSON types.
        backbone: whose network input or maps it will see.

    Raises:
        InvalidParameter: an unknown kind, or settings that it cannot be built from.
    """
    kind = settings.get("kind")
    if kind == "rpn":
        from ovperception.proposals.rpn import OfflineRPN, RPNSettings

        return OfflineRPN(RPNSettings.from_dict(settings), mean=backbone.mean, std=backbone.std)
    if kind == "clip-rpn":
        from ovperception.proposals.clip_rpn import ClipRPN, ClipRPNSettings

        return ClipRPN(ClipRPNSettings.from_dict(settings), backbone)
    raise InvalidParameter(
        "No proposer is of this kind", field="proposer.kind", expected=f"one of {', '.join(KINDS)}", got=kind
    )
