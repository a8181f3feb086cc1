"""Several questions about one picture, and their answers: what batches and streams are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

import numpy as np
from google.rpc.status_pb2 import Status
from numpy.typing import NDArray

from ovperception.client import scaling
from ovperception.client.numbers import at_least_one, real, whole
from ovperception.client.replies import Reply, read_reply
from ovperception.errors import InvalidParameter, OVPError
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import perceive_pb2 as pb
from ovperception.v1 import results_pb2
from ovperception.wire import read_detections, read_float_map, read_panoptic, read_semantic
from ovperception.wire_errors import error_of
from ovperception.word_text import check_text

__all__ = ["Detect", "Heatmap", "MaskEncoding", "Output", "Panoptic", "Perception", "Semantic"]

T = TypeVar("T")
MaskEncoding = Literal["cropped_rle", "coco_rle", "png", "packed_bits", "polygons"]
"""How masks travel; they arrive as run lengths whichever it is."""
_MASK_ENCODINGS: tuple[MaskEncoding, ...] = get_args(MaskEncoding)


def mask_encoding_number(name: MaskEncoding) -> int:
    """As requests have it.

    Raises:
        InvalidParameter: There is none of this name.
    """
    if name not in _MASK_ENCODINGS:
        raise InvalidParameter(
            "No such encoding of masks",
            field="mask_encoding",
            expected=" or ".join(_MASK_ENCODINGS),
            got=name,
        )
    return results_pb2.MaskEncoding.Value(f"MASK_ENCODING_{name.upper()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detect:
    """Ask for objects; None means the model's own."""

    score_threshold: float | None = None
    max_detections: int | None = None
    nms_iou_threshold: float | None = None
    masks: bool = True
    mask_encoding: MaskEncoding = "cropped_rle"
    model: str = ""

    def message(self) -> pb.PerceiveOutput:
        """For a request."""
        detect = pb.DetectOutput(
            score_threshold=real(self.score_threshold, "score_threshold"),
            max_detections=whole(self.max_detections, "max_detections"),
            nms_iou_threshold=real(self.nms_iou_threshold, "nms_iou_threshold"),
            include_masks=self.masks,
            mask_encoding=results_pb2.MaskEncoding.Name(mask_encoding_number(self.mask_encoding)),
        )
        return pb.PerceiveOutput(model=self.model, detect=detect)


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantic:
    """Ask for a class per pixel, or per square of `stride` pixels."""

    score_threshold: float | None = None
    scores: bool = False
    stride: int = 1
    model: str = ""

    def message(self) -> pb.PerceiveOutput:
        """For a request."""
        semantic = pb.SemanticOutput(
            score_threshold=real(self.score_threshold, "score_threshold"),
            include_scores=self.scores,
            output_stride=at_least_one(self.stride, "stride"),
        )
        return pb.PerceiveOutput(model=self.model, semantic=semantic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panoptic:
    """Ask for a segment per pixel."""

    score_threshold: float | None = None
    model: str = ""

    def message(self) -> pb.PerceiveOutput:
        """For a request."""
        panoptic = pb.PanopticOutput(score_threshold=real(self.score_threshold, "score_threshold"))
        return pb.PerceiveOutput(model=self.model, panoptic=panoptic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap:
    """Ask how well each pixel fits a text."""

    text: str
    model: str = ""

    def message(self) -> pb.PerceiveOutput:
        """For a request."""
        check_text(self.text, "text")
        return pb.PerceiveOutput(model=self.model, heatmap=pb.HeatmapOutput(text=self.text))


Output = Detect | Semantic | Panoptic | Heatmap | Literal["detect", "semantic", "panoptic"]
Answer = Detections | SemanticMap | PanopticMap | NDArray[np.float32]

_BY_NAME: Mapping[str, Detect | Semantic | Panoptic] = {
    "detect": Detect(),
    "semantic": Semantic(),
    "panoptic": Panoptic(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Perception:
    """What a server answered about one picture.

    Attributes:
        reply: What came with it.
        answers: One for each output asked for, in order; heat maps are (H, W) float32.
    """

    reply: Reply
    answers: tuple[Answer, ...]

    @property
    def detections(self) -> Detections:
        """The first answer that is detections."""
        return self._first(Detections)

    @property
    def semantic(self) -> SemanticMap:
        """The first answer that is a semantic map."""
        return self._first(SemanticMap)

    @property
    def panoptic(self) -> PanopticMap:
        """The first answer that is a panoptic map."""
        return self._first(PanopticMap)

    @property
    def heatmap(self) -> NDArray[np.float32]:
        """The first answer that is a heat map."""
        return self._first(np.ndarray)

    def restored(self, size: scaling.Size) -> Perception:
        """The same answers about a picture of (height, width) `size`."""
        answers = tuple(scaling.restore(answer, size) for answer in self.answers)
        return replace(self, reply=replace(self.reply, size=size), answers=answers)

    def _first(self, kind: type[T]) -> T:
        for answer in self.answers:
            if isinstance(answer, kind):
                return answer
        raise InvalidParameter(
            f"No {kind.__name__} among the answers", field="outputs", mend="Ask for it in outputs"
        )


def output_messages(outputs: Sequence[Output]) -> list[pb.PerceiveOutput]:
    """Outputs as requests have them.

    Raises:
        InvalidParameter: One is not known.
    """
    messages = []
    for index, output in enumerate(outputs):
        chosen = _BY_NAME.get(output) if isinstance(output, str) else output
        if not isinstance(chosen, Detect | Semantic | Panoptic | Heatmap):
            known = " or ".join([*_BY_NAME, "Heatmap(text=...)"])
            raise InvalidParameter("No such output", field=f"outputs[{index}]", expected=known, got=output)
        messages.append(chosen.message())
    return messages


def read_perception(result: pb.PerceiveResult, round_trip_ms: float) -> Perception:
    """What a result says."""
    names = tuple(entry.name for entry in result.classes)
    size = (result.info.image.height, result.info.image.width)
    answers: list[Answer] = []
    for answer in result.answers:
        kind = answer.WhichOneof("answer")
        if kind == "objects":
            answers.append(read_detections(answer.objects, names, size))
        elif kind == "semantic":
            answers.append(read_semantic(answer.semantic, names))
        elif kind == "panoptic":
            answers.append(read_panoptic(answer.panoptic, names))
        else:
            answers.append(read_float_map(answer.heatmap))
    return Perception(reply=read_reply(result.info, round_trip_ms), answers=tuple(answers))


def read_failure(status: Status) -> OVPError:
    """The error of one picture."""
    return error_of(status) or OVPError("The server failed on this picture", got=status.message)
