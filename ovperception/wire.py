"""Answers and vocabularies to protobuf messages and back, without loss: a served answer equals the local one.

The server writes with the ``..._message`` functions, the client reads with ``read_...``. Nothing here needs
torch. A reply that contradicts itself raises `InvalidInput` in the client.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidInput, InvalidParameter, InvalidVocabulary
from ovperception.images import encode_png
from ovperception.structures import Detections, PanopticMap, Segment, SemanticMap
from ovperception.stuff import default_stuff
from ovperception.templates import resolve_templates
from ovperception.v1 import results_pb2 as pb
from ovperception.v1 import vocabulary_pb2
from ovperception.vocabulary import Vocabulary, VocabularyClass
from ovperception.wire_masks import mask_message, read_mask

__all__ = [
    "boxes_message",
    "detections_message",
    "embeddings_message",
    "float_map_message",
    "label_encoding",
    "panoptic_message",
    "read_boxes",
    "read_detections",
    "read_embeddings",
    "read_float_map",
    "read_panoptic",
    "read_semantic",
    "read_vocabulary",
    "semantic_message",
    "vocabulary_message",
]

_LABEL_TYPES: dict[int, np.dtype[Any]] = {
    pb.LABEL_ENCODING_PNG8: np.dtype("u1"),
    pb.LABEL_ENCODING_PNG16: np.dtype("<u2"),
    pb.LABEL_ENCODING_RAW8: np.dtype("u1"),
    pb.LABEL_ENCODING_RAW16: np.dtype("<u2"),
}
_PNG_ENCODINGS = frozenset({pb.LABEL_ENCODING_PNG8, pb.LABEL_ENCODING_PNG16})


def boxes_message(boxes: NDArray[np.float32]) -> list[pb.Box]:
    """(N, 4) xyxy boxes as messages."""
    return [pb.Box(x_min=x0, y_min=y0, x_max=x1, y_max=y1) for x0, y0, x1, y1 in boxes.tolist()]


def read_boxes(boxes: Sequence[pb.Box]) -> NDArray[np.float32]:
    """(N, 4) xyxy boxes."""
    rows = [(box.x_min, box.y_min, box.x_max, box.y_max) for box in boxes]
    return np.array(rows, np.float32).reshape(-1, 4)


def detections_message(found: Detections, mask_encoding: int = pb.MASK_ENCODING_COCO_RLE) -> pb.DetectionList:
    """Detections, whose class names and image size travel elsewhere in the reply."""
    message = pb.DetectionList(has_masks=found.masks is not None)
    rows = zip(found.class_ids.tolist(), found.scores.tolist(), boxes_message(found.boxes), strict=True)
    for index, (class_id, score, box) in enumerate(rows):
        detection = message.detections.add(class_index=class_id, score=score, box=box)
        if found.masks is not None:
            detection.mask.CopyFrom(mask_message(found.masks[index], mask_encoding))
    return message


def read_detections(message: pb.DetectionList, classes: Sequence[str], size: tuple[int, int]) -> Detections:
    """The detections of a reply about an image of `size`, (height, width)."""
    rows = message.detections
    return Detections(
        size=size,
        classes=tuple(classes),
        boxes=read_boxes([row.box for row in rows]),
        scores=np.array([row.score for row in rows], np.float32),
        class_ids=np.array([row.class_index for row in rows], np.int64),
        masks=tuple(read_mask(row.mask, size) for row in rows) if message.has_masks else None,
    )


def semantic_message(
    answer: SemanticMap,
    encoding: int = pb.LABEL_ENCODING_UNSPECIFIED,
    *,
    scores: bool = False,
    stride: int = 1,
) -> pb.LabelMap:
    """A label map.

    Args:
        answer: The map.
        encoding: A `LabelEncoding`; unspecified takes the smaller PNG that holds the number of classes.
        scores: Whether to add the score of every pixel.
        stride: Pixels of the image from one of the map to the next; each stands for the square around it.

    Raises:
        InvalidParameter: `encoding` cannot hold that many classes, or is not known.
    """
    encoding = label_encoding(encoding, len(answer.classes))
    kind = _LABEL_TYPES[encoding]
    void = int(np.iinfo(kind).max)
    labels = _strided(answer.labels, stride)
    values = np.where(labels < 0, void, labels).astype(kind)
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=void + 1)[:void])
    height, width = labels.shape
    return pb.LabelMap(
        width=width,
        height=height,
        encoding=pb.LabelEncoding.Name(encoding),
        data=encode_png(values) if encoding in _PNG_ENCODINGS else values.tobytes(),
        void_value=void,
        present_class_indices=present.tolist(),
        scores=float_map_message(_strided(answer.scores, stride))
        if scores and answer.scores is not None
        else None,
        output_stride=stride if stride > 1 else 0,
    )


def label_encoding(given: int, classes: int) -> int:
    """The `LabelEncoding` of a map of so many classes; unspecified takes the smaller PNG that holds them.

    Raises:
        InvalidParameter: `given` cannot hold that many classes, or is not known.
    """
    if given == pb.LABEL_ENCODING_UNSPECIFIED:
        return pb.LABEL_ENCODING_PNG8 if classes <= 255 else pb.LABEL_ENCODING_PNG16
    kind = _LABEL_TYPES.get(given)
    if kind is None:
        raise InvalidParameter("Unknown label encoding", field="label_encoding", got=given)
    most = int(np.iinfo(kind).max)
    if classes > most:
        raise InvalidParameter(
            f"This label encoding holds at most {most} classes",
            field="label_encoding",
            got=f"{classes} classes",
            mend="Leave label_encoding unset, or ask with fewer classes",
        )
    return given


def _strided(plane: NDArray[Any], stride: int) -> NDArray[Any]:
    """Every `stride`-th pixel; of each square the middle one, or the last there is."""
    rows, columns = (np.minimum(np.arange(0, side, stride) + stride // 2, side - 1) for side in plane.shape)
    return plane if stride == 1 else plane[np.ix_(rows, columns)]


def read_semantic(message: pb.LabelMap, classes: Sequence[str]) -> SemanticMap:
    """The semantic map of a reply."""
    kind = _LABEL_TYPES.get(message.encoding)
    if kind is None:
        raise _contradiction("label map has an encoding this client does not know", message.encoding)
    shape = (message.height, message.width)
    if message.encoding in _PNG_ENCODINGS:
        values = _read_png(message.data, shape, kind)
    else:
        values = _from_bytes(message.data, shape, kind)
    labels = values.astype(np.int32)
    labels[values == message.void_value] = -1
    scores = read_float_map(message.scores) if message.HasField("scores") else None
    return SemanticMap(classes=tuple(classes), labels=labels, scores=scores)


def panoptic_message(answer: PanopticMap) -> pb.PanopticMap:
    """A panoptic map in COCO's form."""
    height, width = answer.ids.shape
    rgb = np.stack([answer.ids >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
    return pb.PanopticMap(
        width=width,
        height=height,
        id_map_png=encode_png(rgb),
        segments=map(_segment_message, answer.segments),
    )


def _segment_message(segment: Segment) -> pb.Segment:
    return pb.Segment(
        id=segment.id,
        class_index=segment.class_id,
        score=segment.score,
        area=segment.area,
        is_thing=segment.is_thing,
    )


def read_panoptic(message: pb.PanopticMap, classes: Sequence[str]) -> PanopticMap:
    """The panoptic map of a reply."""
    bgr = _read_png(message.id_map_png, (message.height, message.width, 3), np.dtype(np.uint8))
    blue, green, red = (bgr[..., channel].astype(np.int32) for channel in range(3))
    segments = (
        Segment(id=s.id, class_id=s.class_index, score=s.score, area=s.area, is_thing=s.is_thing)
        for s in message.segments
    )
    return PanopticMap(classes=tuple(classes), ids=red | green << 8 | blue << 16, segments=tuple(segments))


def float_map_message(values: NDArray[np.float32]) -> pb.FloatMap:
    """(H, W) float32 as a message."""
    height, width = values.shape
    return pb.FloatMap(width=width, height=height, deflated=zlib.compress(values.astype("<f4").tobytes(), 1))


def read_float_map(message: pb.FloatMap) -> NDArray[np.float32]:
    """(H, W) float32."""
    shape = (message.height, message.width)
    # Decompressing stops where the map must end, whatever the stream claims to hold.
    data = zlib.decompressobj().decompress(message.deflated, shape[0] * shape[1] * 4 or 1)
    return _from_bytes(data, shape, np.dtype("<f4")).astype(np.float32)


def embeddings_message(vectors: NDArray[np.float32]) -> pb.EmbeddingMatrix:
    """(N, D) float32 as a message."""
    count, dimension = vectors.shape
    return pb.EmbeddingMatrix(count=count, dimension=dimension, data=vectors.astype("<f4").tobytes())


def read_embeddings(message: pb.EmbeddingMatrix) -> NDArray[np.float32]:
    """(N, D) float32."""
    return _from_bytes(message.data, (message.count, message.dimension), np.dtype("<f4")).astype(np.float32)


def vocabulary_message(words: Vocabulary) -> vocabulary_pb2.Vocabulary:
    """A vocabulary in full."""
    message = vocabulary_pb2.Vocabulary(name=words.name, templates=words.templates or ())
    if words.background is not None:
        message.background.CopyFrom(vocabulary_pb2.WordList(words=words.background))
    for entry in words.classes:
        message.classes.add(
            name=entry.name,
            synonyms=entry.synonyms,
            is_thing=entry.is_thing,
            score_threshold=entry.score_threshold,
            negatives=entry.negatives,
        )
    return message


def read_vocabulary(message: vocabulary_pb2.Vocabulary) -> Vocabulary:
    """The vocabulary of a message.

    Raises:
        InvalidVocabulary: It is none; `field` is the path within the message, such as ``classes[3]``.
    """
    if message.template_set and message.templates:
        raise InvalidVocabulary("Templates are given twice", field="template_set", got=message.template_set)
    stuff = default_stuff()
    classes = []
    for index, entry in enumerate(message.classes):
        try:
            # White space would make two words of one, as it does for words typed by hand.
            name = entry.name.strip()
            chosen = VocabularyClass(
                name=name,
                synonyms=tuple(dict.fromkeys(text.strip() for text in entry.synonyms)),
                is_thing=entry.is_thing if entry.HasField("is_thing") else name.lower() not in stuff,
                negatives=tuple(text.strip() for text in entry.negatives),
                score_threshold=entry.score_threshold if entry.HasField("score_threshold") else None,
            )
        except InvalidVocabulary as error:
            error.field = error.field.replace("vocabulary.classes", f"classes[{index}]")
            raise
        classes.append(chosen)
    try:
        given = message.template_set or tuple(message.templates)
        templates = resolve_templates(given) if given else None
        background = tuple(message.background.words) if message.HasField("background") else None
        return Vocabulary(
            classes=tuple(classes), templates=templates, background=background, name=message.name
        )
    except InvalidVocabulary as error:
        error.field = error.field.removeprefix("vocabulary").removeprefix(".")
        raise


def _read_png(data: bytes, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if values is None or values.shape != shape or values.dtype != kind:
        raise _contradiction("map is not the PNG it should be", f"{len(data)} bytes for shape {shape}")
    return values


def _from_bytes(data: bytes, shape: Iterable[int], kind: np.dtype[Any]) -> NDArray[Any]:
    shape = tuple(shape)
    if len(data) != int(np.prod(shape)) * kind.itemsize:
        raise _contradiction("array has the wrong number of bytes", f"{len(data)} bytes for shape {shape}")
    return np.frombuffer(data, kind).reshape(shape)


def _contradiction(what: str, got: object) -> InvalidInput:
    mend = "Use a client and a server of the same version"
    return InvalidInput(f"The reply's {what}", got=got, mend=mend)
