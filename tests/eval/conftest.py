from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovperception.datasets.scenes import SceneSample, load_categories
from ovperception.errors import Unsupported
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, Segment, SemanticMap
from ovperception.text import TextClassifier
from ovperception.vocabulary import Vocabulary

_NAMES = {c.id: c.name for c in load_categories()}


class FakeScene:
    """Answers from the truth, or, if told to lie, with the neighbouring class everywhere."""

    def __init__(self, sample: SceneSample, model: FakeModel, *, lies: bool, masks: bool) -> None:
        self.sample, self.model, self.lies, self.masks = sample, model, lies, masks

    def _class_of(self, category_id: int, vocabulary: Vocabulary) -> int:
        index = vocabulary.names.index(_NAMES[category_id])
        return (index + 1) % len(vocabulary) if self.lies else index

    def _known(self, vocabulary: Vocabulary) -> list:
        return [s for s in self.sample.segments if _NAMES[s.category_id] in vocabulary.names]

    def detect(
        self,
        vocabulary: Vocabulary,
        *,
        score_threshold: float,
        max_detections: int,
        boxes: Sequence[tuple[float, ...]] | None = None,
        masks: bool = True,
    ) -> Detections:
        assert score_threshold == 0
        # Stuff as well: it is the evaluator's task to drop it.
        found = self._known(vocabulary)[:max_detections]
        if boxes is not None:
            found = [s for s in found if s.box in boxes]
        return Detections(
            size=self.sample.panoptic.shape,
            classes=vocabulary.names,
            boxes=np.array([s.box for s in found], np.float32).reshape(-1, 4),
            scores=np.linspace(0.9, 0.1, len(found), dtype=np.float32),
            class_ids=np.array([self._class_of(s.category_id, vocabulary) for s in found], np.int64),
            masks=tuple(RLE.encode(self.sample.mask(s.id)) for s in found) if self.masks and masks else None,
        )

    def embed_regions(self, boxes: Sequence[tuple[float, ...]]) -> np.ndarray:
        named = {s.box: _NAMES[s.category_id] for s in self.sample.things}
        return self.model.look_like([named[box] for box in boxes]).numpy()

    def semantic(self, vocabulary: Vocabulary, *, score_threshold: float) -> SemanticMap:
        assert score_threshold == 0
        labels = np.full(self.sample.panoptic.shape, -1, np.int32)
        for segment in self._known(vocabulary):
            labels[self.sample.mask(segment.id)] = self._class_of(segment.category_id, vocabulary)
        return SemanticMap(classes=vocabulary.names, labels=labels)

    def panoptic(self, vocabulary: Vocabulary) -> PanopticMap:
        ids = np.zeros(self.sample.panoptic.shape, np.int32)
        segments = []
        for segment in self._known(vocabulary):
            ids[self.sample.mask(segment.id)] = segment.id
            index = self._class_of(segment.category_id, vocabulary)
            is_thing = vocabulary.classes[index].is_thing
            segments.append(
                Segment(id=segment.id, class_id=index, score=1.0, area=segment.area, is_thing=is_thing)
            )
        return PanopticMap(classes=vocabulary.names, ids=ids, segments=tuple(segments))


class FakeModel:
    """Knows every scene it is told of by its pixels, and the crops to come by their order."""

    name, version, digest = "fake", "1", "d" * 64
    device = torch.device("cpu")

    def __init__(
        self,
        samples: Sequence[SceneSample],
        crops: Sequence[int] = (),
        *,
        lies: bool = False,
        masks: bool = True,
        tasks: Sequence[str] = ("detect", "semantic", "panoptic"),
        names_boxes: bool = True,
    ) -> None:
        self._names_boxes = names_boxes
        self.tasks = frozenset(tasks)
        self.spec = SimpleNamespace(
            name="fake", image_size=16, mean=(0.5,) * 3, std=(0.5,) * 3, digest="b" * 64, text_digest="t"
        )
        self.card = SimpleNamespace(
            templates=("a {}.", "the {}|."),
            defaults={"score_threshold": 0.3},
            preprocessing={"longest_edge": 9},
        )
        self.backbone = self
        self.encoded = 0
        self._samples = {s.image.tobytes(): s for s in samples}
        self._crops: Iterator[int] = iter(crops)
        self._lies, self._masks = lies, masks
        self._rows: dict[int, int] = {}

    def encode(self, image: np.ndarray) -> FakeScene:
        self.encoded += 1
        return FakeScene(self._samples[image.tobytes()], self, lies=self._lies, masks=self._masks)

    def classifier(self, vocabulary: Vocabulary) -> TextClassifier:
        # The last synonym is the one that fits: taking only the first would be seen.
        rows = np.cumsum(vocabulary.synonym_counts) - 1
        self._rows = dict(zip(vocabulary.names, rows.tolist(), strict=True))
        return TextClassifier(
            embeddings=torch.eye(sum(vocabulary.synonym_counts)), vocabulary=vocabulary, text_digest="t"
        )

    def embed_image(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == (3, 16, 16)
        assert -1 <= images.min() < images.max() <= 1
        return self.look_like([_NAMES[next(self._crops)] for _ in images])

    def look_like(self, names: Sequence[str]) -> torch.Tensor:
        rows = torch.tensor([self._rows[name] for name in names])
        return F.one_hot((rows + self._lies) % 10_000, max(self._rows.values()) + 2).float()[:, :-1] * 7

    def head_for(self, task: str, *, given_boxes: bool) -> tuple[str, object]:
        assert given_boxes
        if task not in self.tasks or not self._names_boxes:
            raise Unsupported("No head of the fake names boxes")
        return "fake", self


@pytest.fixture
def fake_model() -> type[FakeModel]:
    return FakeModel
