"""A model in one file: `.safetensors` weights with a model card in the header.

Tensors are named ``backbone.*`` (absent when the card refers to a backbone by name, or to the one in another
model's bundle) and ``head.<name>.*``.
The card is JSON under the metadata key ``ovperception``. Nothing in a bundle can execute.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ovperception.errors import InvalidCheckpoint, MissingFile, ResourceExhausted

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BackboneCard", "Bundle", "HeadCard", "ModelCard", "read_bundle", "read_card", "write_bundle"]

_METADATA_KEY = "ovperception"
_LENT = "bundle:"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneCard(_Strict):
    """Which frozen CLIP a model stands on.

    Attributes:
        name: ``open_clip:ARCH[/PRETRAINED]``, or any label when `config` is given; ``bundle:MODEL`` for the
            backbone in another model's bundle, found as `ovperception.load` finds it.
        config: an open_clip configuration for an architecture that open_clip does not list.
        digest: SHA-256 of the weights the heads were trained or published with; empty if not known.
        included: whether the bundle holds the weights; otherwise they are fetched by `name`.
    """

    name: str
    config: dict[str, Any] | None = None
    digest: str = ""
    included: bool = True

    @property
    def lender(self) -> str:
        """The model whose bundle holds the weights; empty if they are here or fetched."""
        return "" if self.included or not self.name.startswith(_LENT) else self.name.removeprefix(_LENT)

    @classmethod
    def lent_by(cls, model: str, digest: str) -> Self:
        """The backbone of another model's bundle, which must have this digest."""
        return cls(name=f"{_LENT}{model}", digest=digest, included=False)


class HeadCard(_Strict):
    """One head: the entry point that builds it and its configuration."""

    name: str
    config: dict[str, Any]


class ModelCard(_Strict):
    """What a model is, where it comes from, what was verified, under which licence.

    Attributes:
        name: short name.
        version: of the weights.
        summary: one sentence.
        backbone, heads: how to build it.
        preprocessing: as `ovperception.preprocess.Preprocessing.to_dict` gives it.
        templates: prompt templates used when a vocabulary names none: a set's name, or the templates.
        template_rule: how the templates' embeddings become one (`ovperception.text.TemplateRule`).
        defaults: default thresholds of a question, such as ``score_threshold``.
        panoptic_rule: how masks share out the pixels (`ovperception.postprocess.pixel_owners`).
        vocabulary: name of the training vocabulary.
        background: name of the vocabulary whose words compete with those asked for, where a question names
            no background of its own; empty for none.
        licence: of the weights; the code's is Apache-2.0.
        paper, code, source: where it was published.
        scores: published or measured numbers, ``"ADE20K PQ": 26.8``.
        verified: what was checked here and how.
        deviations: where this implementation differs on purpose.
    """

    format_version: Literal[1] = 1
    name: str
    version: str = "1"
    summary: str = ""
    backbone: BackboneCard
    heads: tuple[HeadCard, ...]
    preprocessing: dict[str, Any]
    templates: str | tuple[str, ...] = "vild_14"
    template_rule: Literal["normalise_each", "raw_mean"] = "normalise_each"
    defaults: dict[str, float] = Field(default_factory=dict)
    panoptic_rule: Literal["pixels", "masks"] = "pixels"
    vocabulary: str = ""
    background: str = ""
    licence: str = ""
    paper: str = ""
    code: str = ""
    source: str = ""
    scores: dict[str, float] = Field(default_factory=dict)
    verified: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()


class Bundle(_Strict):
    """A card and its tensors."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    card: ModelCard
    tensors: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix.``, with the prefix removed."""
        start = f"{prefix}."
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}


def _refuse_missing(path: Path) -> None:
    if not path.is_file():
        raise MissingFile(
            f"No bundle at {path}",
            field="model",
            mend="Give the path of a .safetensors bundle; `ovp models` lists the models with a name",
        )


def _open(path: Path, framework: str) -> Any:
    from safetensors import SafetensorError, safe_open

    _refuse_missing(path)
    try:
        return safe_open(path, framework=framework)
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidCheckpoint(
            f"{path} is not a safetensors file",
            got=error,
            mend="Official checkpoints become bundles with `ovp convert CHECKPOINT --format ...`",
        ) from error


def _card(path: Path, metadata: Mapping[str, str] | None) -> ModelCard:
    text = (metadata or {}).get(_METADATA_KEY)
    if text is None:
        raise InvalidCheckpoint(
            f"{path} has no model card",
            expected=f"a safetensors file with the metadata key {_METADATA_KEY!r}",
            mend="Make one with `ovp convert` or `ovp train`",
        )
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidCheckpoint(
            f"The model card of {path} cannot be read",
            field=where,
            got=first["msg"],
            mend="The bundle may come from a newer version: update ovperception, or convert again",
        ) from error


def read_card(path: Path) -> ModelCard:
    """The card alone; reads the header, not the weights, and loads no torch.

    Raises:
        MissingFile, InvalidCheckpoint: no file, no safetensors, or no card.
    """
    with _open(path, "numpy") as file:
        return _card(path, file.metadata())


def read_bundle(path: Path) -> Bundle:
    """Card and weights, in the dtype they are stored in, on the CPU.

    Raises:
        MissingFile, InvalidCheckpoint: no file, no safetensors, or no card.
    """
    with _open(path, "pt") as file:
        card = _card(path, file.metadata())
        return Bundle(card=card, tensors={key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - it is no mapping


def write_bundle(path: Path, card: ModelCard, tensors: Mapping[str, Tensor]) -> Path:
    """Write a bundle in one move: the file is whole or not there.

    Raises:
        ResourceExhausted: no room on the disk.
        MissingFile: the folder cannot be written to.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    metadata = {_METADATA_KEY: json.dumps(card.model_dump(mode="json"))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(_separate(tensors), partial, metadata=metadata)
        partial.chmod(0o644)  # the library writes for its owner alone
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if "No space left" in str(error):
            raise ResourceExhausted(
                f"No room for {path}", got=error, mend="Free some disk space, or give another --out"
            ) from error
        raise MissingFile(f"Cannot write {path}", got=error, mend="Give a folder you may write to") from error
    return path


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, none sharing memory with another, which safetensors cannot express."""
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in tensors.items():
        tensor = value.detach().cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        separate[key] = tensor.clone() if pointer in seen else tensor
        seen.add(pointer)
    return separate
