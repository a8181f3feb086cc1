"""What is asked about an image, checked before any work, and what is answered, as messages.

The unary methods and the outputs of a batch or stream become the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ovperception.boxes import boxes_inside
from ovperception.errors import InvalidParameter, InvalidRegions, OVPError, Unsupported
from ovperception.head import Task
from ovperception.head_choice import cannot_answer
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import perceive_pb2 as pb
from ovperception.v1 import results_pb2
from ovperception.v1.image_pb2 import Image
from ovperception.vocabulary import Vocabulary
from ovperception.wire import (
    detections_message,
    float_map_message,
    label_encoding,
    panoptic_message,
    semantic_message,
)
from ovperception.wire_masks import MASK_ENCODINGS
from serving import requests
from serving.call import Call
from serving.engine import Engine
from serving.models import ServedModel, ServedScene
from serving.words import AskedWords

__all__ = ["MAX_STRIDE", "OUTPUTS", "Question", "detection", "heatmap", "panoptic", "questions", "semantic"]

T = TypeVar("T")

OUTPUTS = ("detect", "semantic", "panoptic", "heatmap")
MAX_STRIDE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Generic[T]):
    """One thing to be told about an image.

    Attributes:
        model: Who is asked.
        words: What with, if anything: new words are encoded before.
        ask: Asks; runs on the model's thread, and gives what is left to do, which needs none.
        write: The answer as a message, and whether it was cut short.
        fits: Refuses a picture of a (height, width) that it cannot be asked of.
    """

    model: ServedModel
    words: Vocabulary | None = None
    ask: Callable[[ServedScene], Callable[[], T]]
    write: Callable[[T], tuple[pb.PerceiveAnswer, bool]]
    fits: Callable[[tuple[int, int]], object] = field(default=lambda size: None)

    def answer(self, call: Call, scene: ServedScene) -> tuple[pb.PerceiveAnswer, bool]:
        """Ask about a scene of the question's model."""
        return self.told(call, call.ask(partial(self.ask, scene), self.words, model=self.model))

    def answer_about(self, call: Call, image: Image, *, keep: bool = False) -> tuple[pb.PerceiveAnswer, bool]:
        """Ask about an image."""
        return self.told(call, call.ask_about(image, [self], keep=keep)[0])

    def told(self, call: Call, finish: Callable[[], T]) -> tuple[pb.PerceiveAnswer, bool]:
        """Make a message of what `ask` gave."""
        message, truncated = call.encode(partial(self.write, call.finish(finish)))
        message.model = self.model.name
        return message, truncated


class _Options(Protocol):
    def HasField(self, field_name: str) -> bool: ...


class _Boxes(Protocol):
    @property
    def boxes(self) -> Sequence[results_pb2.Box]: ...


class DetectOptions(_Options, Protocol):
    """What DetectOutput and DetectObjectsRequest share."""

    score_threshold: float
    max_detections: int
    nms_iou_threshold: float
    include_masks: bool
    mask_encoding: results_pb2.MaskEncoding

    @property
    def regions(self) -> _Boxes: ...


class SemanticOptions(_Options, Protocol):
    """What SemanticOutput and SegmentImageRequest share."""

    score_threshold: float
    label_encoding: results_pb2.LabelEncoding
    include_scores: bool
    output_stride: int


def questions(
    outputs: Sequence[pb.PerceiveOutput], model: ServedModel, words: AskedWords | None, engine: Engine
) -> tuple[Question[Any], ...]:
    """The questions of a list of outputs.

    Args:
        outputs: What is asked for.
        model: Who is asked where an output does not say it.
        words: The words; None if the request has none.
        engine: Has the other models, and the limits.

    Raises:
        OVPError: One of them cannot be asked; `field` is its path, such as ``outputs[1].detect``.
    """
    if not 0 < len(outputs) <= engine.config.max_outputs:
        raise InvalidParameter(
            "The number of outputs is out of its range",
            field="outputs",
            expected=f"1 to {engine.config.max_outputs}",
            got=len(outputs),
        )
    found = []
    for index, output in enumerate(outputs):
        try:
            asked = engine.models.get(output.model) if output.model else model
            question = _question(output, asked, words, engine.config.max_texts)
            place = f"outputs[{index}].{output.WhichOneof('kind')}"
            found.append(replace(question, fits=partial(_fits_at, place, question.fits)))
        except OVPError as error:
            if error.field != "vocabulary":
                error.field = f"outputs[{index}].{error.field}".rstrip(".")
            raise
    return tuple(found)


def _question(
    output: pb.PerceiveOutput, model: ServedModel, words: AskedWords | None, max_boxes: int
) -> Question[Any]:
    kind = output.WhichOneof("kind")
    if kind is None:
        raise InvalidParameter("An output asks for nothing", expected=" or ".join(OUTPUTS), got="no kind")
    if kind != "heatmap" and words is None:
        raise InvalidParameter(
            f"The output {kind} needs words", field="vocabulary", expected="a name, or one inline"
        )
    try:
        if kind == "heatmap":
            return heatmap(model, output.heatmap.text)
        assert words is not None
        if kind == "detect":
            default = results_pb2.MASK_ENCODING_CROPPED_RLE
            return detection(model, words, output.detect, max_boxes, default_encoding=default)
        if kind == "semantic":
            return semantic(model, words, output.semantic)
        return panoptic(model, words, output.panoptic)
    except OVPError as error:
        error.field = f"{kind}.{error.field}".rstrip(".")
        raise


def detection(
    model: ServedModel,
    words: AskedWords,
    options: DetectOptions,
    max_boxes: int,
    *,
    default_encoding: int = results_pb2.MASK_ENCODING_COCO_RLE,
    need_masks: bool = False,
) -> Question[Detections]:
    """Objects that the words name.

    Raises:
        OVPError: The model cannot be asked so; `field` is that of `options`.
    """
    _check_task(model, "detect")
    least, overlap = _threshold(options, "score_threshold"), _threshold(options, "nms_iou_threshold")
    limited = options.HasField("max_detections")
    most = requests.max_detections(options.max_detections) if limited else None
    masks = options.include_masks if options.HasField("include_masks") else True
    encoding = _mask_encoding(options.mask_encoding, default_encoding)
    regions: NDArray[np.float32] | None = None
    with _FIELDS_OF_REGIONS:
        if options.HasField("regions"):
            regions = requests.boxes(options.regions.boxes, max_boxes)
        model.head_for("detect", given_boxes=regions is not None, need_masks=need_masks)

    def fits(size: tuple[int, int]) -> None:
        if regions is not None:
            with _FIELDS_OF_REGIONS:
                boxes_inside(regions, size)

    def ask(scene: ServedScene) -> Callable[[], Detections]:
        with _FIELDS_OF_REGIONS:
            return scene.draft_detections(
                words.for_objects,
                boxes=regions,
                score_threshold=least,
                max_detections=most,
                nms_iou_threshold=overlap,
                masks=masks,
            )

    def write(found: Detections) -> tuple[pb.PerceiveAnswer, bool]:
        truncated = most is not None and len(found.scores) >= most
        return pb.PerceiveAnswer(objects=detections_message(words.objects(found), encoding)), truncated

    return Question(model=model, words=words.for_objects, ask=ask, write=write, fits=fits)


def semantic(model: ServedModel, words: AskedWords, options: SemanticOptions) -> Question[SemanticMap]:
    """A class per pixel.

    Raises:
        OVPError: The model cannot be asked so; `field` is that of `options`.
    """
    _check_task(model, "semantic")
    least = _threshold(options, "score_threshold")
    encoding = label_encoding(options.label_encoding, len(words.vocabulary))
    scores, stride = options.include_scores, options.output_stride or 1
    if stride > MAX_STRIDE:
        raise InvalidParameter(
            "The stride of the map is out of its range",
            field="output_stride",
            expected=f"1 to {MAX_STRIDE}, or 0 for 1",
            got=stride,
        )

    def ask(scene: ServedScene) -> Callable[[], SemanticMap]:
        return _finished(scene.semantic(words.vocabulary, score_threshold=least))

    def write(found: SemanticMap) -> tuple[pb.PerceiveAnswer, bool]:
        message = semantic_message(words.labels(found), encoding, scores=scores, stride=stride)
        return pb.PerceiveAnswer(semantic=message), False

    return Question(model=model, words=words.vocabulary, ask=ask, write=write)


def panoptic(model: ServedModel, words: AskedWords, options: _Options) -> Question[PanopticMap]:
    """A segment per pixel.

    Raises:
        OVPError: The model cannot be asked so; `field` is that of `options`.
    """
    _check_task(model, "panoptic")
    least = _threshold(options, "score_threshold")

    def ask(scene: ServedScene) -> Callable[[], PanopticMap]:
        return _finished(scene.panoptic(words.vocabulary, score_threshold=least))

    def write(found: PanopticMap) -> tuple[pb.PerceiveAnswer, bool]:
        return pb.PerceiveAnswer(panoptic=panoptic_message(words.segments(found))), False

    return Question(model=model, words=words.vocabulary, ask=ask, write=write)


def heatmap(model: ServedModel, text: str) -> Question[NDArray[np.float32]]:
    """How well each pixel fits a text.

    Raises:
        InvalidParameter: It is no text.
    """
    checked = requests.text(text, "text")

    def write(found: NDArray[np.float32]) -> tuple[pb.PerceiveAnswer, bool]:
        return pb.PerceiveAnswer(heatmap=float_map_message(found)), False

    return Question(model=model, ask=lambda scene: _finished(scene.heatmap(checked)), write=write)


def _fits_at(place: str, fits: Callable[[tuple[int, int]], object], size: tuple[int, int]) -> None:
    """The same; but a refusal names the field by its whole path."""
    try:
        fits(size)
    except OVPError as error:
        error.field = f"{place}.{error.field}"
        raise


def _finished(found: T) -> Callable[[], T]:
    return lambda: found


def _threshold(options: _Options, field: str) -> float | None:
    return requests.fraction(getattr(options, field), field) if options.HasField(field) else None


def _mask_encoding(given: int, default: int) -> int:
    if given == results_pb2.MASK_ENCODING_UNSPECIFIED:
        return default
    if given not in MASK_ENCODINGS:
        raise InvalidParameter(
            "Unknown mask encoding",
            field="mask_encoding",
            expected=" or ".join(map(results_pb2.MaskEncoding.Name, MASK_ENCODINGS)),
            got=given,
        )
    return given


def _check_task(model: ServedModel, task: Task) -> None:
    if task not in model.tasks:
        raise cannot_answer(model.name, task, model.tasks)


class _FieldsOfRegions:
    """Names boxes as requests spell them."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InvalidRegions | Unsupported) and error.field.startswith("boxes"):
            error.field = f"regions.{error.field}"


_FIELDS_OF_REGIONS = _FieldsOfRegions()
