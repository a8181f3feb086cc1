"""What the features of a cache depend on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from ovperception.errors import InvalidCheckpoint, InvalidParameter, Unsupported
from ovperception.training.loss_scale import multiplied_in

if TYPE_CHECKING:
    from ovperception.backbones.base import Backbone
    from ovperception.preprocess import Preprocessing
    from ovperception.training.labelled_batches import LabelledViews

__all__ = ["CacheDtype", "CacheKey", "cache_key"]

CacheDtype = Literal["fp16", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKey:
    """Two caches of one key hold the same numbers.

    Attributes:
        backbone: digest of its weights.
        computed_in: type that the backbone computed in, ``float32``, ``bfloat16`` or ``float16``.
        stages: names of the maps that are kept.
        dtype: type they are kept in.
        frame: (height, width) of the network input.
        preprocessing: as `Preprocessing.to_dict` gives it, without its sizes: the augmentation resizes.
        augmentation: as `Augmentation.to_dict` gives it.
        seed: of the augmentation.
        views: of each picture.
        pictures: in the data set.
        data: digest of annotations, pictures and classes.
        classes: content hash of the training vocabulary.
    """

    backbone: str
    computed_in: str
    stages: tuple[str, ...]
    dtype: CacheDtype
    frame: tuple[int, int]
    preprocessing: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    seed: int
    views: int
    pictures: int
    data: str
    classes: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: Path) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            InvalidCheckpoint: a field is missing or unknown.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        if values.keys() != names:
            raise InvalidCheckpoint(
                f"{path} does not describe a feature cache of this version",
                expected=", ".join(sorted(names)),
                got=", ".join(sorted(values)),
                mend="Export the features anew",
            )
        parts = dict(values) | {"stages": tuple(values["stages"]), "frame": tuple(values["frame"])}
        return cls(**parts)

    def require(self, wanted: CacheKey, path: Path) -> None:
        """Refuse a cache that holds something else.

        Raises:
            InvalidCheckpoint: naming every field that differs.
        """
        here, there = self.to_dict(), wanted.to_dict()
        differing = [name for name in here if here[name] != there[name]]
        # A cache may hold more than a head reads.
        if "stages" in differing and set(wanted.stages) <= set(self.stages):
            differing.remove("stages")
        if differing:
            raise InvalidCheckpoint(
                f"The features in {path} are of another {' and '.join(differing)}",
                field=differing[0],
                expected="; ".join(f"{name} {there[name]}" for name in differing),
                got="; ".join(f"{name} {here[name]}" for name in differing),
                mend="Export them anew into another folder, or train with the settings they were made of",
            )


def cache_key(
    views: LabelledViews,
    backbone: Backbone,
    *,
    dtype: CacheDtype = "fp16",
    stages: tuple[str, ...] | None = None,
    bfloat16: bool = False,
    float16: bool = False,
) -> CacheKey:
    """The key of the features of these views.

    Args:
        views: with a number of views, all of one size.
        backbone: frozen.
        dtype: to keep them in.
        stages: names of the maps to keep; None: all.
        bfloat16: whether the backbone multiplies in bfloat16.
        float16: or in float16.

    Raises:
        InvalidParameter: views without end, or a stage that the backbone does not have.
        Unsupported: views of differing sizes, which are padded differently in each batch.
    """
    if views.views is None:
        raise InvalidParameter(
            "Views that never come again cannot be kept",
            field="views",
            expected="a number of views a picture",
            mend="Give LabelledViews(views=N)",
        )
    if views.frame is None:
        raise Unsupported(
            "Only views of one size can be kept",
            field="augmentation.crop",
            expected="a crop of fixed size",
            mend="Use Augmentation.large_scale_jitter(size), or a crop",
        )
    # Of several sizes of the picture, those that regions are read from as well.
    known = tuple(dict.fromkeys((*backbone.spec.stages, *backbone.region_stages)))
    chosen = known if stages is None else stages
    if dtype not in ("fp16", "bf16"):
        raise InvalidParameter("Unknown dtype", field="dtype", expected="fp16 or bf16", got=dtype)
    if not chosen or not set(chosen) <= set(known):
        raise InvalidParameter(
            "The backbone has no such maps", field="stages", expected=", ".join(known), got=", ".join(chosen)
        )
    return CacheKey(
        backbone=backbone.spec.digest,
        computed_in=str(multiplied_in(bfloat16=bfloat16, float16=float16)).removeprefix("torch."),
        stages=chosen,
        dtype=dtype,
        frame=views.frame,
        preprocessing=_without_sizes(views.preprocessing),
        augmentation=views.augmentation.to_dict(),
        seed=views.seed,
        views=views.views,
        pictures=len(views.source),
        data=views.source.digest(),
        classes=views.source.classes.content_hash,
    )


def _without_sizes(preprocessing: Preprocessing) -> dict[str, Any]:
    return dict(dataclasses.replace(preprocessing, shortest_edge=None, longest_edge=None).to_dict())
