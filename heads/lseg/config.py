"""The sizes and constants of an LSeg head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, TypeVar, get_args

from ovperception.errors import InvalidParameter
from ovperception.sliding import Views

__all__ = ["Activation", "LSegConfig", "ReadConfig", "TrunkConfig", "vit_large_16_384"]

Activation = Literal["relu", "lrelu", "tanh"]

LEVELS = 4
"""Maps that the decoder fuses, finest first."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkConfig:
    """A plain vision transformer that belongs to the head.

    Attributes:
        width: channels of a token.
        depth: blocks.
        heads: attention heads.
        patch_size: pixels of a patch's side.
        grid: (height, width) in patches that the positions were trained at.
        taps: the blocks, numbered from 0, whose output is read; one for each level.
    """

    width: int
    depth: int
    heads: int
    patch_size: int
    grid: tuple[int, int]
    taps: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        """Refuse what no trunk can be built from."""
        for name in ("width", "depth", "heads", "patch_size"):
            _check_count(name, getattr(self, name))
        if self.width % self.heads:
            raise InvalidParameter(
                "The heads do not share the width", field="heads", expected=f"a divisor of {self.width}"
            )
        if len(self.grid) != 2 or any(not _is_count(n) for n in self.grid):
            raise InvalidParameter("The grid needs a height and a width", field="grid", got=self.grid)
        rising = list(self.taps) == sorted(set(self.taps))
        if len(self.taps) != LEVELS or not rising or not 0 <= self.taps[0] <= self.taps[-1] < self.depth:
            raise InvalidParameter(
                "The taps are no blocks of the trunk",
                field="taps",
                expected=f"{LEVELS} rising numbers from 0 to {self.depth - 1}",
                got=self.taps,
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `LSegConfig.to_dict` wrote.

        Raises:
            InvalidParameter: a field is missing, unknown or out of its range.
        """
        return _from_dict(cls, values)


def vit_large_16_384() -> TrunkConfig:
    """The trunk of the published models: timm's ``vit_large_patch16_384``, read after every sixth block."""
    return TrunkConfig(width=1024, depth=24, heads=16, patch_size=16, grid=(24, 24), taps=(5, 11, 17, 23))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadConfig:
    """How pixels read the frozen CLIP's own embeddings (`heads.lseg.reading`).

    Attributes:
        stages: maps that the backbone's dense embedding can be taken of, one a scale.
        channels: of each of them.
        key_dim: numbers by which a pixel and a cell are compared.
        hidden: of the adapter, which adds to the embeddings what was learned about words.
    """

    stages: tuple[str, ...]
    channels: int
    key_dim: int = 32
    hidden: int = 512

    def __post_init__(self) -> None:
        """Refuse what nothing can be read from."""
        if not self.stages or any(not isinstance(s, str) for s in self.stages):
            raise InvalidParameter(
                "There is no stage to read", field="read.stages", expected="one or more", got=self.stages
            )
        for name in ("channels", "key_dim", "hidden"):
            _check_count(f"read.{name}", getattr(self, name))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `LSegConfig.to_dict` wrote.

        Raises:
            InvalidParameter: a field is missing, unknown or out of its range.
        """
        return _from_dict(cls, values)


@dataclass(frozen=True, slots=True, kw_only=True)
class LSegConfig:
    """Everything that decides what an LSeg head computes, besides its weights.

    Attributes:
        embed_dim: D of the CLIP space.
        trunk: the head's own image trunk; None: it stands on maps of the frozen CLIP.
        stages: those maps, finest first; empty with an own trunk.
        stage_channels: their channels.
        stage_strides: their strides. Where all are equal, as of a ViT, the maps are brought to 4, 2, 1 and
            1/2 times their size first, as those of an own trunk are.
        reassemble_channels: channels of the maps after that; not read where the strides differ.
        features: channels inside the decoder.
        grow: how many times the size of the finest level the embeddings' grid is, 1 or 2; LSeg's is 2.
        read: how pixels read the frozen CLIP's own embeddings; None: the decoder makes them alone, as LSeg's.
        logit_scale: what similarities are multiplied by; LSeg's is a constant, not CLIP's.
        arch_option: what is done to the logits (paper, section 4.2): 0 nothing, 1 bottleneck blocks,
            2 depthwise blocks.
        block_depth: how often; 0 counts as 1, as in the reference.
        activation: between these blocks.
        views: how a picture is looked at more than once (`ovperception.sliding`); None: once, as it is. With
            an `arch_option` every window is kept (`heads.lseg.looks`), which takes much memory.
        seen_words: names of the classes met in training, with their synonyms.
        seen_weight, unseen_weight: where the CLIP is read, the share of what was learned in the similarity
            with a word that was met in training, and with any other; the rest is the frozen CLIP's, as in
            FC-CLIP's two classifiers (arXiv:2308.02487, equation 7).
        seen_discount: what is taken off the logits of these classes, which are preferred to those never met
            (calibrated stacking, Chao et al., ECCV 2016, equation 3).
    """

    embed_dim: int
    trunk: TrunkConfig | None = None
    stages: tuple[str, ...] = ()
    stage_channels: tuple[int, ...] = ()
    stage_strides: tuple[int, ...] = ()
    reassemble_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    features: int = 256
    grow: Literal[1, 2] = 2
    read: ReadConfig | None = None
    logit_scale: float = 1 / 0.07
    arch_option: Literal[0, 1, 2] = 0
    block_depth: int = 0
    activation: Activation = "relu"
    views: Views | None = None
    seen_words: tuple[str, ...] = ()
    seen_weight: float = 1.0
    unseen_weight: float = 1.0
    seen_discount: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no head can be built from."""
        _check_count("embed_dim", self.embed_dim)
        _check_count("features", self.features)
        if (self.trunk is None) != bool(self.stages):
            raise InvalidParameter(
                "A head has its own trunk or stands on the backbone's maps",
                field="stages",
                expected=f"{LEVELS} stages without a trunk, none with one",
                got=self.stages,
            )
        lists: tuple[str, ...] = ("reassemble_channels",)
        lists += ("stages", "stage_channels", "stage_strides") if self.trunk is None else ()
        for name in lists:
            values = getattr(self, name)
            if len(values) != LEVELS or (name != "stages" and any(not _is_count(n) for n in values)):
                raise InvalidParameter(
                    f"{name} needs one value a level", field=name, expected=f"{LEVELS} of them", got=values
                )
        number = isinstance(self.logit_scale, int | float) and not isinstance(self.logit_scale, bool)
        if not number or not math.isfinite(self.logit_scale) or self.logit_scale <= 0:
            raise InvalidParameter(
                "The logit scale must be positive", field="logit_scale", got=self.logit_scale
            )
        if self.grow not in (1, 2) or isinstance(self.grow, bool):
            raise InvalidParameter("The grid cannot grow so", field="grow", expected="1 or 2", got=self.grow)
        if self.read is not None and self.trunk is not None:
            raise InvalidParameter(
                "A head with its own trunk is of a space of its own and reads no CLIP",
                field="read",
                expected="no trunk, or nothing to read",
            )
        for name in ("seen_weight", "unseen_weight"):
            weight = getattr(self, name)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
                raise InvalidParameter(
                    f"{name} is no share", field=name, expected="a number from 0 to 1", got=weight
                )
            if weight < 1 and self.read is None:
                raise InvalidParameter(
                    "Only where the CLIP is read is there something else to weigh", field=name, got=weight
                )
        discount = isinstance(self.seen_discount, int | float) and not isinstance(self.seen_discount, bool)
        if not discount or not math.isfinite(self.seen_discount):
            raise InvalidParameter(
                "The discount must be a number", field="seen_discount", got=self.seen_discount
            )
        if self.seen_discount and self.arch_option:
            raise InvalidParameter(
                "Blocks that refine logits were trained without a discount",
                field="seen_discount",
                expected="arch_option 0, or no discount",
            )
        if self.arch_option not in (0, 1, 2) or isinstance(self.arch_option, bool):
            raise InvalidParameter(
                "There is no such arch_option",
                field="arch_option",
                expected="0, 1 or 2",
                got=self.arch_option,
            )
        if self.block_depth != 0:
            _check_count("block_depth", self.block_depth)
        if self.activation not in get_args(Activation):
            raise InvalidParameter(
                "The activation is not known",
                field="activation",
                expected=" or ".join(get_args(Activation)),
                got=self.activation,
            )

    @property
    def keeps_frozen(self) -> bool:
        """Whether what the frozen CLIP says of a pixel is kept beside what was learned."""
        return min(self.seen_weight, self.unseen_weight) < 1

    @property
    def applications(self) -> int:
        """How often the block of `arch_option` is applied."""
        return max(self.block_depth, 1) if self.arch_option else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for a bundle's model card."""
        values = asdict(self)
        if self.trunk is not None:
            values["trunk"] = {k: list(v) if isinstance(v, tuple) else v for k, v in values["trunk"].items()}
        if self.views is not None:
            values["views"] = self.views.to_dict()
        if self.read is not None:
            values["read"] = {k: list(v) if isinstance(v, tuple) else v for k, v in values["read"].items()}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InvalidParameter: a field is missing, unknown or out of its range.
        """
        given = dict(values)
        for name, kind in (("trunk", TrunkConfig), ("views", Views), ("read", ReadConfig)):
            described = given.get(name)
            if isinstance(described, Mapping):
                given[name] = kind.from_dict(described)
            elif described is not None and not isinstance(described, kind):
                raise InvalidParameter(
                    f"{name} is not described", field=name, expected="its settings, or nothing", got=described
                )
        return _from_dict(cls, given)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_count(name: str, value: object) -> None:
    if not _is_count(value):
        raise InvalidParameter(f"{name} must be positive", field=name, expected="1 or more", got=value)


def _from_dict(cls: type[_T], values: Mapping[str, Any]) -> _T:
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InvalidParameter(
            "Unknown head settings", expected=", ".join(sorted(known)), got=", ".join(unknown)
        )
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return cls(**arguments)
    except TypeError as error:
        raise InvalidParameter("The head is not described whole", got=error) from error
