"""A model of a fixed cost and without weights: what is measured with it is the server."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ovperception.head import Task
from ovperception.images import Geometry
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, Segment, SemanticMap
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovperception.backbones.base import BackboneSpec

__all__ = ["StubModel", "expected_score"]

_DIM = 16


def expected_score(word: str) -> float:
    """The score that every stub gives to a word, from 0.5 to 1: an answer about other words shows."""
    return float(np.float32(0.5 + zlib.crc32(word.encode()) % 1000 / 2000))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    name: str
    embed_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    image: NDArray[np.uint8]
    geometry: Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    size: tuple[int, int]
    took_ms: float
    nbytes: int = 1_000_000

    def alone(self) -> _Look:
        """Itself: it holds no memory of its batch."""
        return self


class _Sizing:
    def geometry(self, size: tuple[int, int]) -> Geometry:
        """Sides in steps of 64."""
        return _geometry(size)


class StubModel:
    """Finds one object for each of the first words.

    Args:
        name: Its name.
        pass_ms: What a pass costs, however many images it has; it sleeps, as for a device.
        image_ms: What each image adds.
        objects: Most objects that it finds.
    """

    version = "1"
    digest = "0" * 64
    tasks: frozenset[Task] = frozenset({"detect", "semantic", "panoptic"})

    def __init__(
        self, name: str = "stub", *, pass_ms: float = 8.0, image_ms: float = 0.0, objects: int = 8
    ) -> None:
        self.name = name
        self.objects = objects
        self._cost_ms = (pass_ms, image_ms)
        self.preprocessing = _Sizing()

    @property
    def trunk(self) -> str:
        """Its own."""
        return f"stub:{self.name}"

    @property
    def spec(self) -> BackboneSpec:
        """What replies say of a backbone; the whole card would load torch, which a stub has no need of."""
        return cast("BackboneSpec", _Spec(name="stub", embed_dim=_DIM))

    def head_for(self, task: Task, *, given_boxes: bool = False, need_masks: bool = False) -> object:
        """Itself, whatever is asked."""
        return self

    def stand_on(self, other: Any) -> None:
        """Share nothing: there is nothing to share."""

    def prepare(self, image: NDArray[np.uint8], *, presented: tuple[int, int] | None = None) -> _Picture:
        """The picture as it is."""
        return _Picture(image=image, geometry=self.preprocessing.geometry(presented or image.shape[:2]))

    def look(self, pictures: Sequence[_Picture]) -> Sequence[_Look]:
        """Sleep for the cost of a pass."""
        each_ms, image_ms = self._cost_ms
        took_ms = each_ms + image_ms * len(pictures)
        if took_ms:
            time.sleep(took_ms / 1e3)  # even for no time it would let other threads go first
        return [_Look(size=picture.geometry.original, took_ms=took_ms) for picture in pictures]

    def scenes(self, looks: Sequence[_Look]) -> Sequence[_Scene]:
        """What can be asked."""
        return [_Scene(look, self.objects) for look in looks]

    def learn(self, vocabulary: Vocabulary) -> Iterator[int] | None:
        """Nothing: it knows all words."""
        return None

    @property
    def text_counts(self) -> Mapping[str, int]:
        """None: it looks nothing up."""
        return {}

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        """(T, D) vectors that depend on the texts."""
        return np.array([[expected_score(f"{text}{i}") for i in range(_DIM)] for text in texts], np.float32)

    def embed_image(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(D,) the same vector for every image."""
        return np.full(_DIM, _DIM**-0.5, np.float32)


class _Scene:
    def __init__(self, look: _Look, objects: int) -> None:
        self.size, self.nbytes = look.size, look.nbytes
        self.timing: Mapping[str, float] = {"preprocess": 0.0, "backbone": look.took_ms, "head": 0.0}
        self._objects = objects

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
        """One object for each of the first words, in the upper left of the picture."""
        count = min(self._objects, max_detections or self._objects)
        return lambda: _detections(words.names, count, self.size, masks=masks)

    def semantic(self, words: Vocabulary, *, score_threshold: float | None = None) -> SemanticMap:
        """The first class everywhere."""
        return SemanticMap(
            classes=words.names,
            labels=np.zeros(self.size, np.int32),
            scores=np.ones(self.size, np.float32),
        )

    def panoptic(self, words: Vocabulary, *, score_threshold: float | None = None) -> PanopticMap:
        """One segment."""
        area = self.size[0] * self.size[1]
        segment = Segment(id=1, class_id=0, score=1.0, area=area, is_thing=words.is_thing[0])
        return PanopticMap(classes=words.names, ids=np.ones(self.size, np.int32), segments=(segment,))

    def heatmap(self, text: str) -> NDArray[np.float32]:
        """The same everywhere."""
        return np.full(self.size, expected_score(text), np.float32)

    def embed_regions(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, D) the same vector for every box."""
        return np.full((len(boxes), _DIM), _DIM**-0.5, np.float32)


@lru_cache(maxsize=64)
def _geometry(size: tuple[int, int]) -> Geometry:
    height, width = (-(-side // 64) * 64 for side in size)
    return Geometry(original=size, resized=size, padded=(height, width))


@lru_cache(maxsize=64)  # what it costs is not the server's
def _detections(names: tuple[str, ...], count: int, size: tuple[int, int], *, masks: bool) -> Detections:
    found = names[:count]
    height, width = size
    box = np.array([0, 0, max(1, width // 4), max(1, height // 4)], np.float32)
    rle = _corner(size, box) if masks else None
    return Detections(
        size=size,
        classes=names,
        boxes=np.tile(box, (len(found), 1)),
        scores=np.array([expected_score(word) for word in found], np.float32),
        class_ids=np.arange(len(found), dtype=np.int64),
        masks=None if rle is None else (rle,) * len(found),
    )


def _corner(size: tuple[int, int], box: NDArray[np.float32]) -> RLE:
    mask = np.zeros(size, bool)
    mask[: int(box[3]), : int(box[2])] = True
    return RLE.encode(mask)
