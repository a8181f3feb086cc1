"""A model as detectron2 calls one: ``list[dict]`` in, ``list[dict]`` out.

::

    from detectron2.evaluation import inference_on_dataset
    predict = Detectron2Model(ovp.load("tiny"), Vocabulary.builtin("coco_80"))
    inference_on_dataset(predict, data_loader, evaluator)

Inputs are those of detectron2's standard data loader: ``image`` (3, H, W) 0-255 in the order of
``INPUT.FORMAT``, and ``height`` and ``width``, the size that answers have. Outputs have ``instances``,
``sem_seg`` and ``panoptic_seg``, as far as the model can answer; classes are indices into the words.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import torch

from ovperception.errors import InvalidParameter, MissingDependency, Unsupported
from ovperception.head import Task
from ovperception.interop.presented import channel_order, look_at, picture
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovperception.model import Model
    from ovperception.scene import Words

__all__ = ["Detectron2Model", "to_instances", "to_panoptic_seg", "to_sem_seg"]


class Detectron2Model:
    """Answers what detectron2's evaluators, demos and visualisers ask.

    Args:
        model: that answers.
        words: the classes, in the order of the data set's contiguous ids.
        tasks: what to answer; None for all that the model can.
        input_format: order of the channels, as in ``INPUT.FORMAT``.
        score_threshold: of instances; 0, as AP asks, unless told otherwise.
        max_detections: of instances, an image.

    Raises:
        Unsupported: the model cannot answer a task.
        InvalidParameter: the order of channels is not known.
    """

    def __init__(
        self,
        model: Model,
        words: Words,
        *,
        tasks: Collection[Task] | None = None,
        input_format: str = "BGR",
        score_threshold: float = 0.0,
        max_detections: int = 100,
    ) -> None:
        wanted = model.tasks if tasks is None else frozenset(tasks)
        if wanted - model.tasks:
            raise Unsupported(
                f"Model {model.name!r} cannot answer this",
                field="tasks",
                expected=" or ".join(t for t in get_args(Task) if t in model.tasks),
                got=", ".join(sorted(wanted - model.tasks)),
            )
        self.model = model
        self.vocabulary = Vocabulary.from_words(words)
        self.tasks = wanted
        self._order = channel_order(input_format)
        self._score_threshold = score_threshold
        self._max_detections = max_detections

    def __call__(self, inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The answers, one an image.

        Args:
            inputs: one mapping an image.

        Raises:
            InvalidImage: an image is not (3, H, W), 0 to 255.
            InvalidParameter: an input has no image.
            MissingDependency: detectron2 is not installed.
        """
        return [self._answer(one) for one in inputs]

    def _answer(self, one: Mapping[str, Any]) -> dict[str, Any]:
        if "image" not in one:
            raise InvalidParameter(
                "An input has no image", field="inputs", expected='"image"', got=", ".join(sorted(one))
            )
        pixels = picture(one["image"], self._order)
        size = int(one.get("height", pixels.shape[0])), int(one.get("width", pixels.shape[1]))
        scene = look_at(self.model, pixels, size)
        answer: dict[str, Any] = {}
        if "detect" in self.tasks:
            found = scene.detect(
                self.vocabulary, score_threshold=self._score_threshold, max_detections=self._max_detections
            )
            answer["instances"] = to_instances(found)
        if "semantic" in self.tasks:
            answer["sem_seg"] = to_sem_seg(scene.semantic(self.vocabulary, score_threshold=0.0))
        if "panoptic" in self.tasks:
            answer["panoptic_seg"] = to_panoptic_seg(scene.panoptic(self.vocabulary))
        return answer


def to_instances(found: Detections) -> Any:
    """detectron2's ``Instances``: pred_boxes, scores, pred_classes, and pred_masks where there are masks.

    Raises:
        MissingDependency: detectron2 is not installed.
    """
    try:
        from detectron2.structures import Boxes, Instances
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "detectron2 is not installed", mend="docs/evaluation.md tells how it installs today"
        ) from error
    instances = Instances(found.size)
    instances.pred_boxes = Boxes(torch.from_numpy(found.boxes.copy()))
    instances.scores = torch.from_numpy(found.scores.copy())
    instances.pred_classes = torch.from_numpy(found.class_ids.copy())
    if found.masks is not None:
        masks = np.zeros((len(found), *found.size), np.bool_)
        for i, mask in enumerate(found.masks):
            crop, top, left = mask.decode_crop()
            masks[i, top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        instances.pred_masks = torch.from_numpy(masks)
    return instances


def to_sem_seg(found: SemanticMap) -> torch.Tensor:
    """(K, H, W) float32: the winning class's score at its place, zero elsewhere; for an argmax."""
    labels = torch.from_numpy(found.labels.astype(np.int64))
    scores = torch.ones(found.size) if found.scores is None else torch.from_numpy(found.scores.copy())
    planes = torch.zeros((len(found.classes), *found.size))
    # A score of zero would leave the choice to the first class.
    kept = torch.where(labels < 0, 0.0, scores.clamp(min=torch.finfo(torch.float32).tiny))
    return planes.scatter_(0, labels.clamp(min=0)[None], kept[None])


def to_panoptic_seg(found: PanopticMap) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """The ids, (H, W) int32, 0 for void, and one mapping a segment."""
    segments = [
        {
            "id": segment.id,
            "category_id": segment.class_id,
            "isthing": segment.is_thing,
            "score": segment.score,
            "area": segment.area,
        }
        for segment in found.segments
    ]
    return torch.from_numpy(found.ids.copy()), cast("list[dict[str, Any]]", segments)
