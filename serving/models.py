"""What the server needs of a model, and the models of one server by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidParameter, UnknownModel
from ovperception.head import Task
from ovperception.head_choice import cannot_answer
from ovperception.images import Geometry
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import results_pb2 as pb
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:  # its package builds models, and loads torch
    from ovperception.backbones.base import BackboneSpec

__all__ = ["ModelSet", "ServedLook", "ServedModel", "ServedPicture", "ServedScene", "Sizing"]

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

    def draft_detections(
        self,
        words: Vocabulary,
        *,
        boxes: NDArray[np.float32] | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        nms_iou_threshold: float | None = None,
        masks: bool = True,
    ) -> Callable[[], Detections]:
        """The objects that `words` name; of (N, 4) `boxes`, if given, what is in them.

        What is returned finishes them without the device, on any thread.
        """
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


class ServedPicture(Protocol):
    """A picture ready for a backbone: `ovperception.looks.Prepared`, or what a test puts in its place."""

    @property
    def geometry(self) -> Geometry:
        """How the picture lies in the network's input."""
        ...


class ServedLook(Protocol):
    """A picture as a backbone saw it: `ovperception.looks.Look`, or what a test puts in its place."""

    @property
    def nbytes(self) -> int:
        """Bytes it holds on to, once it is alone."""
        ...

    def alone(self) -> ServedLook:
        """The same without the memory of its batch."""
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

    def head_for(self, task: Task, *, given_boxes: bool = False, need_masks: bool = False) -> object:
        """Who in it answers a task.

        `Unsupported` if nobody does, or not with, or without, boxes given, or not with the masks needed.
        """
        ...

    @property
    def preprocessing(self) -> Sizing:
        """How pictures become network input."""
        ...

    @property
    def trunk(self) -> str:
        """Models for which it is equal can use each other's looks."""
        ...

    def stand_on(self, other: Any) -> None:
        """Use the backbone of another model of this trunk, so that it is in memory once."""
        ...

    # Any in the next three: a model takes its own kind of pictures and looks, which nobody else opens.
    def prepare(self, image: NDArray[np.uint8], *, presented: tuple[int, int] | None = None) -> Any:
        """Make the network's input of an (H, W, 3) RGB image; on any thread.

        `presented` is the (height, width) of the whole picture, if the image is it at a smaller scale.
        """
        ...

    def look(self, pictures: Sequence[Any]) -> Sequence[ServedLook]:
        """Run the backbone on prepared pictures of one network size, all at once."""
        ...

    def scenes(self, looks: Sequence[Any]) -> Sequence[ServedScene]:
        """Let the heads see looks of this trunk."""
        ...

    def learn(self, vocabulary: Vocabulary) -> Iterator[int] | None:
        """Encode words little by little; None if they are known."""
        ...

    @property
    def text_counts(self) -> Mapping[str, int]:
        """Texts looked up so far, by where they were found: ``memory``, ``disk``, ``missing``."""
        ...

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        """(T, D) vectors of unit length."""
        ...

    def embed_image(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(D,) vector of a whole image."""
        ...


class ModelSet:
    """The models of one server; the first is the default. Models of one trunk stand on one backbone.

    Args:
        models: At least one, each with a name of its own.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        names = [model.name for model in models]
        if not models or len(set(names)) < len(names):
            raise InvalidParameter(
                "A server needs at least one model, each with a name of its own", field="models", got=names
            )
        self._lock = threading.Lock()
        # Never changed, only replaced, so that readers need no lock.
        self._models: dict[str, ServedModel] = {}
        self.infos: dict[str, pb.ModelInfo] = {}
        for model in models:
            self.put(model)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def put(self, model: ServedModel) -> ServedModel | None:
        """Add a model, or let it take the place of the one of its name, which is returned."""
        with self._lock:
            others = [other for other in self._models.values() if other.name != model.name]
            lender = next((other for other in others if other.trunk == model.trunk), None)
            if lender is not None:
                model.stand_on(lender)
            replaced = self._models.get(model.name)
            self._models = {**self._models, model.name: model}
            self.infos = {**self.infos, model.name: _info(model)}
        return replaced

    def remove(self, name: str) -> ServedModel:
        """Forget a model; calls that have it go on.

        Raises:
            UnknownModel: No model of this name is loaded.
            InvalidParameter: It is the last one.
        """
        with self._lock:
            model = self.get(name)
            if len(self._models) == 1:
                raise InvalidParameter("The last model cannot be unloaded", field="name", got=model.name)
            self._models = {key: value for key, value in self._models.items() if value is not model}
            self.infos = {key: value for key, value in self.infos.items() if key != model.name}
        return model

    def info(self, model: ServedModel) -> pb.ModelInfo:
        """What replies say about a model, whether or not another has taken its place meanwhile."""
        known = self._models.get(model.name) is model and self.infos.get(model.name)
        return known or _info(model)

    def share(self, model: ServedModel) -> bool:
        """Whether another model stands on the same backbone."""
        return any(other.trunk == model.trunk for other in self._models.values() if other is not model)

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
            raise cannot_answer(model.name, task, model.tasks)
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
