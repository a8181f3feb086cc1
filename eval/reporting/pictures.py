"""The best and the worst images, what is there beside what was said, inside the page itself."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.outcome import Answer, Example, Outcome
from eval.reporting.numbers import written
from ovperception.drawing import draw_detections
from ovperception.errors import OVPError
from ovperception.images import load_image
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, SemanticMap

__all__ = ["PICTURE_BYTES", "ExampleView", "example_views"]

PICTURE_BYTES = 3_000_000
"""All pictures of a page together, before base64 makes them a third longer."""
_SIDES = (640, 480, 360, 240)
_QUALITY = 82
_LEAST_SIDE = 480
"""Letters are as small as the picture; a smaller one is magnified before it is drawn on."""
_NAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleView:
    """One image: two pictures as data URIs, and what one who cannot see them should know."""

    title: str
    score: str
    counted: str
    truth: str
    truth_text: str
    found: str
    found_text: str


def example_views(
    outcome: Outcome, out: Path, *, most_bytes: int = PICTURE_BYTES
) -> tuple[dict[str, tuple[ExampleView, ...]], tuple[str, ...]]:
    """The views of each end of the scale, and what could not be shown.

    Args:
        outcome: the evaluation.
        out: its folder, which relative paths start from.
        most_bytes: of all pictures; they become smaller, then fewer.
    """
    drawn: list[tuple[Example, Sequence[NDArray[np.uint8]]]] = []
    problems = []
    for example in outcome.examples:
        try:
            picture = load_image(out / example.picture)
            there, found = _drawn(example.truth, picture, truth=True), _drawn(example.found, picture)
            drawn.append((example, (there, found)))
        except OVPError as error:
            problems.append(f"{example.image.file_name} is not shown: {error.message}")
    encoded: list[tuple[Example, list[bytes]]] = []
    for side in _SIDES:
        encoded = [(example, [_jpeg(p, side) for p in pictures]) for example, pictures in drawn]
        if sum(len(data) for _, pair in encoded for data in pair) <= most_bytes:
            break
    shown: dict[str, list[ExampleView]] = {"worst": [], "best": []}
    spent = 0
    for example, pair in encoded:
        spent += sum(map(len, pair))
        if spent > most_bytes:
            problems.append(f"{example.image.file_name} is not shown: the page would grow too large")
            continue
        shown[example.which].append(_view(example, pair))
    return {which: tuple(rows) for which, rows in shown.items()}, tuple(problems)


def _drawn(answer: Answer, picture: NDArray[np.uint8], *, truth: bool = False) -> NDArray[np.uint8]:
    factor = -(-_LEAST_SIDE // max(picture.shape[:2]))
    if factor > 1 and answer.size == picture.shape[:2]:
        size = (picture.shape[1] * factor, picture.shape[0] * factor)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        answer = _magnified(answer, factor)
    if truth and isinstance(answer, Detections):
        return draw_detections(picture, answer, scores=False)
    return answer.draw(picture)


def _magnified(answer: Answer, factor: int) -> Answer:
    if isinstance(answer, SemanticMap):
        return dataclasses.replace(answer, labels=_repeated(answer.labels, factor), scores=None)
    if isinstance(answer, PanopticMap):
        return dataclasses.replace(answer, ids=_repeated(answer.ids, factor))
    masks = answer.masks
    return dataclasses.replace(
        answer,
        size=(answer.size[0] * factor, answer.size[1] * factor),
        boxes=answer.boxes * np.float32(factor),
        masks=masks and tuple(RLE.encode(_repeated(mask.decode(), factor)) for mask in masks),
    )


def _repeated(pixels: NDArray[Any], factor: int) -> NDArray[Any]:
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _jpeg(picture: NDArray[np.uint8], side: int) -> bytes:
    """A JPEG whose longer side is at most `side`."""
    scale = side / max(picture.shape[:2])
    if scale < 1.0:
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return bytes(data)


def _view(example: Example, pair: Sequence[bytes]) -> ExampleView:
    truth, found = ("data:image/jpeg;base64," + base64.b64encode(data).decode() for data in pair)
    image = example.image
    return ExampleView(
        title=image.file_name,
        score=written("score", image.score),
        counted=f"{image.found} of {image.objects} found",
        truth=truth,
        truth_text=f"What is in {image.file_name}: {_told(example.truth)}",
        found=found,
        found_text=f"What was found in {image.file_name}: {_told(example.found)}",
    )


def _told(answer: Answer) -> str:
    if isinstance(answer, Detections):
        names = [f"{n} {s:.2f}" for n, s in zip(answer.names, answer.scores.tolist(), strict=True)]
    elif isinstance(answer, SemanticMap):
        names = [answer.classes[i] for i in answer.present]
    else:
        names = [answer.classes[segment.class_id] for segment in answer.segments]
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return (", ".join(names[:_NAMES]) or "nothing") + more
