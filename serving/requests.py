"""What requests say, checked: words, thresholds; a refusal names the field as requests spell it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidParameter, InvalidRegions, InvalidVocabulary
from ovperception.v1 import results_pb2
from ovperception.v1.vocabulary_pb2 import Vocabulary as VocabularyMessage
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.vocabulary import MAX_PROMPT_LENGTH, Vocabulary
from ovperception.wire import read_boxes, read_vocabulary
from serving.pictures import IMAGE_FORMATS, PIXEL_FORMATS

__all__ = [
    "IMAGE_FORMATS",
    "PIXEL_FORMATS",
    "boxes",
    "fraction",
    "max_detections",
    "text",
    "texts",
    "vocabulary",
]


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


@lru_cache(maxsize=64)
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
    """(N, 4) boxes, not too many, each with an area; whether that lies in the picture its header tells."""
    if len(values) > limit:
        raise InvalidRegions(
            "There are too many boxes", field="boxes", expected=f"at most {limit}", got=len(values)
        )
    found = read_boxes(values)
    bad = ~(np.isfinite(found).all(1) & (found[:, 2:] > found[:, :2]).all(1))
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise InvalidRegions(
            "A box has no area",
            field=f"boxes[{index}]",
            expected="x_min < x_max and y_min < y_max, in pixels",
            got=found[index].tolist(),
        )
    return found
