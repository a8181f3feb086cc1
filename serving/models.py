"""What the server needs of a model, and the models of one server by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidParameter, UnknownModel, Unsupported
from ovperception.head import Task
from ovperception.images import Geometry
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import results_pb2 as pb
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:  # its package builds models, and loads torch
    from ovperception.backbones.base import BackboneSpec

__all__ = ["ModelSet", "ServedModel", "ServedScene", "Sizing"]

_TASKS: Mapping[Task, pb.Task] = {
    "detect": pb.TASK_DETECT,
    "semantic": pb.TASK_SEMANTIC,
    "panoptic": pb.TASK_PANOPTIC,
}


class ServedScene(Protocol):
    """An encoded image: `ovperception.Scene`, or what a test puts in its place."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the presented image."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes it holds on to."""
        ...

    @property
    def timing(self) -> Mapping[str, float]:
        """Milliseconds spent on ``preprocess``, ``backbone`` and ``head``."""
        ...

    def detect(
        self,
        words: Vocabulary,
        *,
        boxes: NDArray[np.float32] | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        nms_iou_threshold: float | None = None,
        masks: bool = True,
    ) -> Detections:
        """The objects that `words` name; of (N, 4) `boxes`, if given, what is in them."""
        ...

    def semantic(self, words: Vocabulary, *, score_threshold: float | None = None) -> SemanticMap:
        """A class per pixel."""
        ...

    def panoptic(self, words: Vocabulary, *, score_threshold: float | None = None) -> PanopticMap:
        """A segment per pixel."""
        ...

    def heatmap(self, text: str) -> NDArray[np.float32]:
        """(H, W): how well each pixel fits `text`."""
        ...

    def embed_regions(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, D): one vector per box."""
        ...


class Sizing(Protocol):
    """What the queue asks of a model's preprocessing."""

    def geometry(self, size: tuple[int, int]) -> Geometry:
        """Where a picture of this (height, width) lies in the network's input."""
        ...


class ServedModel(Protocol):
    """A loaded model: `ovperception.Model`, or what a test puts in its place."""

    @property
    def name(self) -> str:
        """Name that requests ask for."""
        ...

    @property
    def version(self) -> str:
        """Version of its weights."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 over all its weights."""
        ...

    @property
    def spec(self) -> BackboneSpec:
        """Identity card of its backbone."""
        ...

    @property
    def tasks(self) -> frozenset[Task]:
        """What it can be asked."""
        ...

    @property
    def preprocessing(self) -> Sizing:
        """How pictures become network input."""
        ...

    def encode_batch(self, images: list[NDArray[np.uint8]]) -> Sequence[ServedScene]:
        """Encode (H, W, 3) RGB images, all at once."""
        ...

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        """(T, D) vectors of unit length."""
        ...

    def embed_image(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(D,) vector of a whole image."""
        ...


class ModelSet:
    """The models of one server; the first is the default.

    Args:
        models: At least one, each with a name of its own.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = {model.name: model for model in models}
        if not models or len(self._models) < len(models):
            names = [model.name for model in models]
            raise InvalidParameter(
                "A server needs at least one model, each with a name of its own", field="models", got=names
            )
        self.infos = {name: _info(model) for name, model in self._models.items()}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def get(self, name: str, task: Task | None = None) -> ServedModel:
        """The model of this name, or the default if the name is empty.

        Raises:
            UnknownModel: No model of this name is loaded.
            Unsupported: It cannot be asked for `task`.
        """
        model = self._models.get(name) if name else next(iter(self._models.values()))
        if model is None:
            raise UnknownModel(
                "No model of this name is loaded",
                field="model",
                expected=f"one of {', '.join(self._models)}, or nothing for the first",
                got=name,
            )
        if task is not None and task not in model.tasks:
            raise Unsupported(
                f"Model {model.name} cannot be asked for {task}",
                field="task",
                expected=" or ".join(sorted(model.tasks)),
                got=task,
            )
        return model


def _info(model: ServedModel) -> pb.ModelInfo:
    return pb.ModelInfo(
        name=model.name,
        version=model.version,
        weights_digest=model.digest,
        tasks=sorted(_TASKS[task] for task in model.tasks),
        backbone=model.spec.name,
        embedding_dimension=model.spec.embed_dim,
    )
