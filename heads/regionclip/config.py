"""The constants of a RegionCLIP head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from ovperception.errors import InvalidParameter
from ovperception.head import BoxRules, ObjectnessRule, Suppression

__all__ = ["RegionCLIPConfig"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "objectness": get_args(ObjectnessRule),
    "report": ("rank", "class"),
    "suppression": get_args(Suppression),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionCLIPConfig:
    """Everything that decides what a RegionCLIP head computes, besides its weights.

    Attributes:
        embed_dim: D of the CLIP space.
        proposer: What finds boxes, as `ovperception.proposals.build_proposer` takes it; None: nothing does,
            and boxes must be given.
        temperature: Cosine similarities are divided by it before the softmax.
        box_deltas: Whether the head moves the boxes of its proposer; given boxes stay where they are.
        delta_weights: What the deltas of x, y, width and height are divided by.
        masks: Whether the head makes a mask inside each detected box.
        region_channels: Channels of the region maps that the mask head reads; of the backbone's last stage.
        mask_channels: Hidden width of the mask head.
        objectness: What a proposal's objectness does to its scores. RegionCLIP was published with
            ``sqrt_raw``; the default is its bounded kin.
        report: Which score is told where objectness takes part (`ovperception.head.BoxRules`).
        suppression: What happens to overlapping boxes of a class.
    """

    embed_dim: int
    proposer: Mapping[str, Any] | None = None
    temperature: float = 0.01
    box_deltas: bool = False
    delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    masks: bool = False
    region_channels: int = 0
    mask_channels: int = 256
    objectness: ObjectnessRule = "sqrt_sigmoid"
    report: Literal["rank", "class"] = "rank"
    suppression: Suppression = "hard"

    def __post_init__(self) -> None:
        """Refuse what no head can be built from."""
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InvalidParameter(
                    f"{name} is not known", field=name, expected=" or ".join(known), got=getattr(self, name)
                )
        for name in ("embed_dim", "mask_channels", *(("region_channels",) if self.masks else ())):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidParameter(
                    f"{name} must be positive", field=name, expected="1 or more", got=value
                )
        for name in ("box_deltas", "masks"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidParameter(
                    f"{name} is a switch", field=name, expected="true or false", got=getattr(self, name)
                )
        if not _positive(self.temperature):
            raise InvalidParameter(
                "The temperature must be positive", field="temperature", got=self.temperature
            )
        if len(self.delta_weights) != 4 or not all(map(_positive, self.delta_weights)):
            raise InvalidParameter(
                "The deltas need four weights",
                field="delta_weights",
                expected="positive numbers for x, y, width, height",
                got=self.delta_weights,
            )
        if self.proposer is not None and not isinstance(self.proposer, Mapping):
            raise InvalidParameter(
                "The proposer is not described",
                field="proposer",
                expected='settings such as {"kind": "rpn"}, or nothing',
                got=self.proposer,
            )

    @property
    def rules(self) -> BoxRules:
        """What post-processing shall do with the scores."""
        return BoxRules(objectness=self.objectness, report=self.report, suppression=self.suppression)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for a bundle's model card."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InvalidParameter: A name is not known, or `embed_dim` is missing, or a value is out of its range.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InvalidParameter(
                "Unknown head settings", expected=", ".join(sorted(known)), got=", ".join(unknown)
            )
        if "embed_dim" not in values:
            raise InvalidParameter("Missing head settings", expected="embed_dim")
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)


def _positive(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0  # type: ignore[arg-type,operator]
