"""A model is a frozen backbone, heads, and preprocessing; a scene is an image it has looked at once.

`Model.encode` is the heavy half and knows no words; every question to the `Scene` it returns is the light
half. Nothing a question does touches the backbone again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ovperception.assembly import build_backbone, build_heads
from ovperception.backbones.base import BackboneSpec
from ovperception.backbones.clip import ClipBackbone, weights_digest
from ovperception.bundle import Bundle, ModelCard, read_bundle
from ovperception.catalogue import locate
from ovperception.errors import InvalidParameter, InvalidVocabulary
from ovperception.head import Head, Task
from ovperception.head_choice import choose_head
from ovperception.images import Geometry, load_image, load_reduced
from ovperception.looks import Look, Prepared
from ovperception.passes import in_passes
from ovperception.preprocess import Preprocessing
from ovperception.scene import Scene, Words
from ovperception.text import TextClassifier, TextEncoder
from ovperception.vocabulary import Vocabulary, check_texts

__all__ = ["ImageSource", "Model", "Scene", "Words", "load"]

ImageSource = str | Path | bytes | NDArray[np.uint8]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    name: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    compile: bool = False,  # noqa: A002 - torch's own word for it
    scaled_decode: bool = False,
) -> Model:
    """Load a model.

    Args:
        name: a built-in or pulled model of the catalogue (`ovp models`), or the path of a bundle.
        device: where to run, ``cpu``, ``cuda``, ``cuda:1``, ...
        dtype: of the backbone: ``float32``, ``bfloat16`` or ``float16``. Heads stay in float32.
        compile: run the backbone through ``torch.compile``; the first image of each size takes long.
        scaled_decode: decode JPEG files at a half, a quarter or an eighth where the model works at no more
            than that; faster, and not the same numbers (`ovperception.images.load_reduced`).

    Raises:
        UnknownModel, MissingFile: there is no such model or file.
        InvalidCheckpoint: the bundle's weights do not fit its card.
        InvalidParameter: device or dtype is not known here.
    """
    if dtype not in _DTYPES:
        raise InvalidParameter("Unknown dtype", field="dtype", expected=" or ".join(_DTYPES), got=dtype)
    model = Model.from_bundle(read_bundle(locate(name)))
    model.backbone.to(dtype=_DTYPES[dtype])
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InvalidParameter(
            f"The device {device!r} cannot be used",
            field="device",
            got=str(error).splitlines()[0],
            mend="Use device='cpu', or install a torch build for your GPU",
        ) from error
    if compile:
        model.backbone.compile_trunk()
    model.scaled_decode = scaled_decode
    return model


class Model:
    """A frozen backbone with one or more heads.

    Args:
        card: what the model says of itself; gives name, version, templates and default thresholds.
        backbone: the frozen CLIP.
        heads: name -> head, all on this backbone; a task goes to the first head that can do it.
        preprocessing: how pictures become network input.

    Attributes:
        scaled_decode: whether JPEG files may be decoded smaller, see `load`.
    """

    def __init__(
        self,
        card: ModelCard,
        backbone: ClipBackbone,
        heads: Mapping[str, nn.Module],
        preprocessing: Preprocessing,
    ) -> None:
        self.card = card
        self.backbone = backbone
        self.heads = {name: head.eval().requires_grad_(False) for name, head in heads.items()}
        self.preprocessing = preprocessing
        self.scaled_decode = False
        self.text = TextEncoder(backbone, templates=card.templates, rule=card.template_rule)
        known = Vocabulary.builtin(card.background).classes if card.background else ()
        self._extended: dict[str, Vocabulary] = {}
        self._background = tuple("|".join(c.synonyms) for c in known)

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Model:
        """Build a model from a bundle, on the CPU in float32.

        Raises:
            InvalidCheckpoint: weights are missing, left over or misshaped.
            UnknownHead: a head's package is not installed.
        """
        backbone = build_backbone(bundle)
        heads = build_heads(bundle, backbone.spec)
        return cls(bundle.card, backbone, heads, Preprocessing.from_dict(bundle.card.preprocessing))

    @property
    def name(self) -> str:
        """Short name."""
        return self.card.name

    @property
    def version(self) -> str:
        """Version of the weights."""
        return self.card.version

    @property
    def spec(self) -> BackboneSpec:
        """The identity card of the backbone."""
        return self.backbone.spec

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the weights of backbone and heads."""
        parts = [self.backbone.spec.digest]
        parts += [
            f"{name}:{weights_digest(head.state_dict().items())}" for name, head in sorted(self.heads.items())
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def tasks(self) -> frozenset[Task]:
        """The questions this model can answer."""
        return frozenset(task for head in self.heads.values() for task in cast("Head", head).tasks)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.backbone.device

    def to(self, device: torch.device | str) -> Model:
        """Move backbone and heads; returns itself."""
        self.backbone.to(device)
        for head in self.heads.values():
            head.to(device)
        return self

    def encode(self, image: ImageSource) -> Scene:
        """Look at one image.

        Args:
            image: (H, W, 3) uint8 RGB array, a path, or the bytes of a JPEG, PNG or WebP file.

        Raises:
            InvalidImage, MissingFile: it is no picture, or there is no such file.
        """
        return self.encode_batch([image])[0]

    def encode_batch(self, images: Sequence[ImageSource]) -> list[Scene]:
        """Look at several images; those of one network size share a pass of the backbone.

        Every image is padded on its own, never to the size of another, so its features do not depend on its
        neighbours in the batch.

        Raises:
            InvalidImage, MissingFile: as for `encode`; nothing was encoded then.
            ResourceExhausted: the device has no memory for one image of this size.
        """
        return self.scenes(self.look([self.prepare(image) for image in images]))

    def prepare(self, image: ImageSource, *, presented: tuple[int, int] | None = None) -> Prepared:
        """Make the network's input of an image; knows no weights, and any thread may do it.

        Args:
            image: as for `encode`.
            presented: (height, width) of the whole picture, if `image` is it at a smaller scale; boxes, masks
                and maps are of this size then.

        Raises:
            InvalidImage, MissingFile: as for `encode`.
        """
        begun = time.perf_counter()
        loaded, whole = load_reduced(image, self._wanted) if self.scaled_decode else (load_image(image), None)
        decoded = time.perf_counter()
        pixels, geometry = self._fit(loaded, presented or whole)
        timing = {"decode": 1e3 * (decoded - begun), "preprocess": 1e3 * (time.perf_counter() - decoded)}
        return Prepared(pixels=pixels, geometry=geometry, timing=timing)

    def look(self, pictures: Sequence[Prepared]) -> list[Look]:
        """Run the backbone; pictures of one network size share a pass.

        Raises:
            ResourceExhausted: the device has no memory for one image of this size.
        """
        return in_passes(pictures, self._look, alike=lambda picture: picture.geometry.padded)

    def scenes(self, looks: Sequence[Look]) -> list[Scene]:
        """Let the heads see what a backbone saw: this model's, or that of another of the same `trunk`.

        Raises:
            ResourceExhausted: as for `look`.
        """
        return in_passes(looks, self._scenes, alike=lambda look: id(look.features))

    @property
    def trunk(self) -> str:
        """Says what a look depends on: models for which it is equal can use each other's."""
        weights = next(self.backbone.parameters())
        parts = [self.spec.digest, weights.dtype, weights.device, self._cell, self.preprocessing.to_dict()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def stand_on(self, other: Model) -> None:
        """Use the backbone of another model of the same `trunk`, so that it is in memory once.

        Raises:
            InvalidParameter: the other stands on something else.
        """
        if self.trunk != other.trunk:
            raise InvalidParameter(
                f"{self.name!r} and {other.name!r} do not share a backbone",
                field="other",
                expected="a model of the same backbone, preprocessing, device and dtype",
                got=f"{self.spec.name} and {other.spec.name}",
            )
        self.backbone = other.backbone
        self.text.stand_on(other.text)

    def _wanted(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.preprocessing.geometry(size).resized

    def _fit(self, image: NDArray[np.uint8], presented: tuple[int, int] | None) -> tuple[Tensor, Geometry]:
        """The network's input; one more slender than a cell of the coarsest stage is padded to a cell."""
        pixels, geometry = self.preprocessing.apply(image, presented)
        height, width = (max(side, self._cell) for side in geometry.padded)
        if (height, width) == geometry.padded:
            return pixels, geometry
        bottom, right = height - geometry.padded[0], width - geometry.padded[1]
        return F.pad(pixels, (0, right, 0, bottom)), dataclasses.replace(geometry, padded=(height, width))

    @cached_property
    def _cell(self) -> int:
        return max((stage.stride for stage in self.backbone.trunk.stages.values()), default=1)

    @torch.inference_mode()
    def _look(self, pictures: Sequence[Prepared]) -> list[Look]:
        begun = self._now()
        features = self.backbone.features(torch.stack([p.pixels for p in pictures]).to(self.device))
        spent_ms = 1e3 * (self._now() - begun) / len(pictures)
        return [
            Look(
                features=features,
                index=index,
                geometry=picture.geometry,
                timing={**picture.timing, "backbone": spent_ms},
            )
            for index, picture in enumerate(pictures)
        ]

    @torch.inference_mode()
    def _scenes(self, looks: Sequence[Look]) -> list[Scene]:
        """The scenes of looks of one pass."""
        count, features = len(looks), looks[0].features
        begun = self._now()
        rows = [look.index for look in looks]
        if rows != list(range(features.count)):
            features = features.rows(rows)
        encodings = {
            name: cast("Head", head).encode(self.backbone, features) for name, head in self.heads.items()
        }
        spent_ms = 1e3 * (self._now() - begun) / count
        kept = features.only(*self.backbone.region_stages)
        return [
            Scene(
                self,
                {
                    name: encoding[i].clone() if count > 1 else encoding
                    for name, encoding in encodings.items()
                },
                kept.image(i).clone() if count > 1 else kept,
                look.geometry,
                {**look.timing, "head": spent_ms},
            )
            for i, look in enumerate(looks)
        ]

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def classifier(self, words: Words | TextClassifier) -> TextClassifier:
        """The text embeddings of some words, from the cache if they were asked for before.

        Args:
            words: words, or embeddings that take their place (`ovperception.class_embeddings`).

        Raises:
            InvalidVocabulary: the words are empty, not text, too many, or given twice; or the embeddings are
                of another size than this model's.
        """
        if isinstance(words, TextClassifier):
            if words.embeddings.shape[1] != self.spec.embed_dim:
                raise InvalidVocabulary(
                    f"The class embeddings are not of the space of {self.name!r}",
                    field="class_embeddings",
                    expected=f"({len(words)}, {self.spec.embed_dim})",
                    got=tuple(words.embeddings.shape),
                    mend="Take those that were made with this model's CLIP",
                )
            return words.to(self.device)
        return self.text.classifier(Vocabulary.from_words(words))

    def learn(self, vocabulary: Vocabulary) -> Iterator[int] | None:
        """Encode the words of a vocabulary and of its competitors little by little (`TextEncoder.learn`).

        Returns:
            The steps; None if a classifier of them is at hand.
        """
        words = self.with_competitors(vocabulary)
        if self.text.knows(words) or self.text.knows(vocabulary):
            return None
        return self.text.learn(words.texts, templates=words.templates)

    def with_competitors(self, vocabulary: Vocabulary) -> Vocabulary:
        """The vocabulary and what competes with it: its own background and negatives, or the model's."""
        key = vocabulary.content_hash
        if key not in self._extended:
            if len(self._extended) >= 64:
                self._extended.pop(next(iter(self._extended)), None)
            self._extended[key] = vocabulary.with_competitors(self._background)
        return self._extended.get(key) or vocabulary.with_competitors(self._background)

    @property
    def text_counts(self) -> Mapping[str, int]:
        """Texts looked up so far, by where they were found; models of one text tower share them."""
        return dict(self.text.cache.counts)

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(T, D) unit-length embeddings of texts as they are, without templates.

        Raises:
            InvalidVocabulary: there are none, or too many, or one is no text.
        """
        embeddings = self.text.embed(check_texts(texts), templates=("{}",))
        return cast("NDArray[np.float32]", embeddings.cpu().numpy())

    @torch.inference_mode()
    def embed_image(self, image: ImageSource) -> NDArray[np.float32]:
        """(D,) unit-length CLIP embedding of a whole image, squashed to the size CLIP was trained at."""
        side = self.spec.image_size
        picture = torch.from_numpy(load_image(image)).permute(2, 0, 1)[None].to(self.device).float() / 255
        resized = F.interpolate(picture, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (
            torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.spec.mean, self.spec.std)
        )
        embedding = self.backbone.embed_image((resized - mean) / std)[0].float()
        return cast("NDArray[np.float32]", F.normalize(embedding, dim=0).cpu().numpy())

    def head_for(
        self, task: Task, *, given_boxes: bool = False, need_masks: bool = False
    ) -> tuple[str, Head]:
        """The head that answers a task: the first that can.

        Args:
            task: what is asked.
            given_boxes: whether the boxes are given, and only their classes asked for.
            need_masks: whether boxes alone are no answer.

        Raises:
            Unsupported: none does, or none without boxes, or none with them, or without masks.
        """
        return choose_head(self.name, self.heads, task, given_boxes=given_boxes, need_masks=need_masks)
