"""What requests say, checked: pictures, words, thresholds; a refusal names the field as requests spell it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidImage, InvalidParameter, InvalidRegions, InvalidVocabulary
from ovperception.images import MAX_SIDE, load_image, read_header
from ovperception.v1 import image_pb2, results_pb2
from ovperception.v1.vocabulary_pb2 import Vocabulary as VocabularyMessage
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.vocabulary import MAX_PROMPT_LENGTH, Vocabulary
from ovperception.wire import read_boxes, read_vocabulary
from serving.admission import Ticket

__all__ = [
    "IMAGE_FORMATS",
    "PIXEL_FORMATS",
    "boxes",
    "fraction",
    "max_detections",
    "pixels",
    "text",
    "texts",
    "vocabulary",
]

IMAGE_FORMATS = ("jpeg", "png", "webp")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Rows of a raw image: how many, how wide, and OpenCV's code to RGB (None: they are RGB)."""

    bytes_per_pixel: int
    to_rgb: int | None
    channels: int
    even_width: bool = False
    even_height: bool = False


_LAYOUTS: dict[int, _Layout] = {
    image_pb2.PIXEL_FORMAT_RGB8: _Layout(3, None, 3),
    image_pb2.PIXEL_FORMAT_BGR8: _Layout(3, cv2.COLOR_BGR2RGB, 3),
    image_pb2.PIXEL_FORMAT_RGBA8: _Layout(4, cv2.COLOR_RGBA2RGB, 4),
    image_pb2.PIXEL_FORMAT_BGRA8: _Layout(4, cv2.COLOR_BGRA2RGB, 4),
    image_pb2.PIXEL_FORMAT_MONO8: _Layout(1, cv2.COLOR_GRAY2RGB, 1),
    image_pb2.PIXEL_FORMAT_NV12: _Layout(1, cv2.COLOR_YUV2RGB_NV12, 1, even_width=True, even_height=True),
    image_pb2.PIXEL_FORMAT_YUYV: _Layout(2, cv2.COLOR_YUV2RGB_YUY2, 2, even_width=True),
}
PIXEL_FORMATS = tuple(map(image_pb2.PixelFormat.Name, _LAYOUTS))


def pixels(image: image_pb2.Image, ticket: Ticket, max_pixels: int) -> NDArray[np.uint8]:
    """The picture of a request as (H, W, 3) RGB, admitted by its size before it is decoded.

    Raises:
        InvalidImage: There is none, or it is not what it says it is.
        ResourceExhausted: Too many pixels are in work already.
    """
    source = image.WhichOneof("source")
    if source == "raw":
        return _raw_pixels(image.raw, ticket, max_pixels)
    if source == "encoded":
        return _decoded(image.encoded, image.exif_orientation, ticket, max_pixels)
    raise InvalidImage(
        "The request has no picture",
        field="image",
        expected="encoded bytes or a raw image" + (", not a handle" if source else ", or a handle"),
    )


def _decoded(data: bytes, policy: int, ticket: Ticket, max_pixels: int) -> NDArray[np.uint8]:
    try:
        header = read_header(data, max_pixels=max_pixels)
        ticket.take(pixels=math.prod(header.size))
        picture = load_image(data, max_pixels=max_pixels)
    except InvalidImage as error:
        error.field = "image.encoded"
        raise
    if policy == image_pb2.EXIF_POLICY_IGNORE:
        return np.ascontiguousarray(_as_stored(picture, header.orientation))
    return picture


def _as_stored(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo what an EXIF orientation made of a picture."""
    match orientation:
        case 2:
            return upright[:, ::-1]
        case 3:
            return upright[::-1, ::-1]
        case 4:
            return upright[::-1]
        case 5:
            return upright.transpose(1, 0, 2)
        case 6:
            return np.rot90(upright, 1)
        case 7:
            return upright[::-1, ::-1].transpose(1, 0, 2)
        case 8:
            return np.rot90(upright, -1)
    return upright


def _raw_pixels(raw: image_pb2.RawImage, ticket: Ticket, max_pixels: int) -> NDArray[np.uint8]:
    layout = _LAYOUTS.get(raw.format)
    if layout is None:
        raise InvalidImage(
            "The raw image has no pixel format",
            field="image.raw.format",
            expected=" or ".join(PIXEL_FORMATS),
            got=raw.format,
        )
    _check_raw_size(raw, layout, max_pixels)
    height = raw.height * 3 // 2 if raw.format == image_pb2.PIXEL_FORMAT_NV12 else raw.height
    row = raw.width * layout.bytes_per_pixel
    stride = raw.row_stride or row
    data = raw.data  # each access copies
    # The last row may come without its padding.
    if stride < row or not stride * (height - 1) + row <= len(data) <= stride * height:
        raise InvalidImage(
            "The raw image's size, stride and data contradict each other",
            field="image.raw.row_stride" if stride < row else "image.raw.data",
            expected=f"a row_stride of at least {row}, and {height} rows of it",
            got=f"row_stride {stride}, {len(data)} bytes",
        )
    ticket.take(pixels=raw.width * raw.height)
    flat = np.frombuffer(data, np.uint8)
    rows = np.lib.stride_tricks.as_strided(flat, (height, row), (stride, 1), writeable=False)
    # A copy, not a view of the message: torch does not take arrays it may not write to.
    picture = rows.copy().reshape(height, row // layout.channels, layout.channels)
    return picture if layout.to_rgb is None else np.asarray(cv2.cvtColor(picture, layout.to_rgb), np.uint8)


def _check_raw_size(raw: image_pb2.RawImage, layout: _Layout, max_pixels: int) -> None:
    size = f"{raw.width} x {raw.height} (width, height)"
    if not 0 < raw.width * raw.height <= max_pixels or max(raw.width, raw.height) > MAX_SIDE:
        raise InvalidImage(
            "The raw image is empty or too large",
            field="image.raw.width",
            expected=f"1 to {max_pixels} pixels, {MAX_SIDE} a side at most",
            got=size,
        )
    if (layout.even_width and raw.width % 2) or (layout.even_height and raw.height % 2):
        raise InvalidImage(
            "This pixel format shares colours between neighbours",
            field="image.raw.width" if raw.width % 2 else "image.raw.height",
            expected="an even size",
            got=size,
        )


def vocabulary(spec: VocabularySpec, max_classes: int, max_texts: int) -> Vocabulary:
    """The words of a request.

    Raises:
        InvalidVocabulary: There are none, too many, or some that are no words.
        UnknownVocabulary: The server has none of this name.
    """
    if spec.WhichOneof("value") == "name":
        words = Vocabulary.builtin(spec.name)
    elif spec.WhichOneof("value") == "inline":
        try:
            words = _parsed(spec.inline.SerializeToString(deterministic=True), max_classes, max_texts)
        except InvalidVocabulary as error:
            error.field = f"vocabulary.inline.{error.field}".rstrip(".")
            raise
    else:
        raise InvalidVocabulary(
            "The request has no vocabulary", field="vocabulary", expected="a name, or one inline"
        )
    return words


@lru_cache(maxsize=16)
def _parsed(inline: bytes, max_classes: int, max_texts: int) -> Vocabulary:
    """A stream sends the same words with every frame, and a thousand classes take long to check."""
    message = VocabularyMessage.FromString(inline)
    _check_lengths(message, max_classes, max_texts)
    return read_vocabulary(message)


def _check_lengths(given: VocabularyMessage, max_classes: int, max_texts: int) -> None:
    """Before anything is built from them."""
    if not 0 < len(given.classes) <= max_classes:
        raise InvalidVocabulary(
            "The number of classes is out of its range",
            field="classes",
            expected=f"1 to {max_classes}",
            got=len(given.classes),
        )
    count = sum(max(1, len(entry.synonyms)) + len(entry.negatives) for entry in given.classes)
    count += len(given.background.words)
    if count > max_texts:
        raise InvalidVocabulary(
            "There are too many words in all",
            field="classes",
            expected=f"at most {max_texts}",
            got=count,
        )


def fraction(value: float, field: str) -> float:
    """A threshold: 0 to 1, and a number at all."""
    if not 0 <= value <= 1:  # NaN is neither
        raise InvalidParameter("A threshold is out of its range", field=field, expected="0 to 1", got=value)
    return value


def max_detections(value: int) -> int:
    """A number of results: at least 1."""
    if value < 1:
        raise InvalidParameter(
            "The number of results is out of its range",
            field="max_detections",
            expected="at least 1",
            got=value,
        )
    return value


def texts(values: Sequence[str], limit: int) -> list[str]:
    """Texts to embed: some, and not too many."""
    if not 0 < len(values) <= limit:
        raise InvalidParameter(
            "The number of texts is out of its range",
            field="texts",
            expected=f"1 to {limit}",
            got=len(values),
        )
    return [text(value, f"texts[{index}]") for index, value in enumerate(values)]


def text(value: str, field: str) -> str:
    """A text to embed: not blank, and not too long."""
    if not value.strip() or len(value) > MAX_PROMPT_LENGTH:
        raise InvalidParameter(
            "A text is blank or too long",
            field=field,
            expected=f"1 to {MAX_PROMPT_LENGTH} characters",
            got=repr(value),
        )
    return value


def boxes(values: Sequence[results_pb2.Box], limit: int) -> NDArray[np.float32]:
    """(N, 4) boxes, not too many; whether each lies in the image is for the scene to say."""
    if len(values) > limit:
        raise InvalidRegions(
            "There are too many boxes", field="boxes", expected=f"at most {limit}", got=len(values)
        )
    return read_boxes(values)
