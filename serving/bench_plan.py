"""What ``ovp bench`` asks, how often, and the requests that come of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ovperception.errors import InvalidParameter
from ovperception.v1 import image_pb2, vocabulary_pb2
from ovperception.v1 import perception_service_pb2 as pb

__all__ = ["Plan", "read_sizes", "requests_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked, and how often.

    Attributes:
        model: Name; empty for the server's first.
        sizes: (width, height) of the pictures, in turn.
        vocabularies: How many different ones, in turn.
        classes: Words in each.
        masks: Whether masks are asked for.
        concurrency: Callers of the closed loop; 0 for none.
        rate: Requests a second of the open loop; 0 for none.
        streams: Streams; 0 for none.
        duration_s: For how long.
        warm_up_s: For how long before that.
        timeout_s: Deadline of a request.
        seed: Of pictures and arrivals.
    """

    model: str = ""
    sizes: tuple[tuple[int, int], ...] = ((640, 480),)
    vocabularies: int = 1
    classes: int = 16
    masks: bool = True
    concurrency: int = 8
    rate: float = 0.0
    streams: int = 0
    duration_s: float = 10.0
    warm_up_s: float = 1.0
    timeout_s: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        kinds = [name for name in ("concurrency", "rate", "streams") if getattr(self, name) > 0]
        if len(kinds) != 1:
            raise InvalidParameter(
                "A load is of one kind", expected="concurrency, rate or streams", got=" and ".join(kinds)
            )
        for name in ("vocabularies", "classes", "duration_s", "timeout_s"):
            if not getattr(self, name) > 0:
                raise InvalidParameter(
                    "There must be some", field=name, expected="more than 0", got=getattr(self, name)
                )


def requests_of(plan: Plan) -> list[pb.DetectObjectsRequest]:
    """Every pairing of a size and a vocabulary, shuffled."""
    words = [
        vocabulary_pb2.Vocabulary(
            classes=[{"name": f"thing {number}.{index}"} for index in range(plan.classes)]
        )
        for number in range(plan.vocabularies)
    ]
    pictures = [_picture(size, plan.seed + number) for number, size in enumerate(plan.sizes)]
    asked = [
        pb.DetectObjectsRequest(
            model=plan.model,
            image=image_pb2.Image(encoded=picture),
            vocabulary=vocabulary_pb2.VocabularySpec(inline=vocabulary),
            include_masks=plan.masks,
        )
        for vocabulary in words
        for picture in pictures
    ]
    order = np.random.default_rng(plan.seed).permutation(len(asked))
    return [asked[number] for number in order]


def _picture(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG about as large as a photograph of this (width, height)."""
    width, height = size
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    smooth = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grainy = np.clip(smooth + rng.integers(-6, 7, smooth.shape, np.int16), 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", grainy, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])


def read_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """(width, height) of each part of ``640x480,1280x720``.

    Raises:
        InvalidParameter: They are no sizes.
    """
    try:
        sizes = tuple((int(w), int(h)) for w, h in (part.split("x") for part in text.split(",")))
    except ValueError:
        sizes = ()
    if not sizes or min(min(size) for size in sizes) < 1:
        raise InvalidParameter("These are no sizes", field="sizes", expected="640x480,1280x720", got=text)
    return sizes
