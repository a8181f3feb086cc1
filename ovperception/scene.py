"""An image that was looked at once, and the questions it answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ovperception.backbones.base import Features
from ovperception.boxes import boxes_inside
from ovperception.errors import InvalidParameter, Unsupported
from ovperception.head import (
    BoxScores,
    Encoding,
    Head,
    MaskEncoding,
    MaskScores,
    PixelEncoding,
    PixelScores,
    RegionEncoding,
    RegionHead,
    Scores,
    Task,
    TextPixelScores,
)
from ovperception.images import Geometry
from ovperception.postprocess import draft_boxes, draft_instances, mask_boxes, panoptic, semantic
from ovperception.postprocess.resize import Resizer, Window
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.text import TextClassifier
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovperception.model import Model

__all__ = ["Scene", "Words"]

Words = Sequence[str] | Vocabulary


class Scene:
    """An image that was looked at once and answers any question, any number of times.

    Boxes, masks and maps are in pixels of the presented image.

    Attributes:
        model: the model that looked.
        geometry: how the image lies in the network input.
        timing: milliseconds of ``decode``, ``preprocess``, ``backbone`` and ``head``, this image's share.
    """

    def __init__(
        self,
        model: Model,
        encodings: Mapping[str, Encoding],
        features: Features,
        geometry: Geometry,
        timing: Mapping[str, float],
    ) -> None:
        self.model = model
        self.geometry = geometry
        self.timing = dict(timing)
        self._encodings = encodings
        self._features = features

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the presented image."""
        return self.geometry.original

    @property
    def nbytes(self) -> int:
        """Bytes kept of the image."""
        return self._features.nbytes + sum(e.nbytes for e in self._encodings.values())

    def scores(self, task: Task, words: Words, *, boxes: ArrayLike | None = None) -> Scores:
        """What the task's head makes of the words, before any post-processing; see `detect` for boxes."""
        head, encoding = self._seen_by(task, boxes)
        with torch.inference_mode():
            return head.classify(encoding, self.model.classifier(words))

    def _seen_by(self, task: Task, boxes: ArrayLike | None) -> tuple[Head, Encoding]:
        name, head = self.model.head_for(task, given_boxes=boxes is not None)
        if boxes is None:
            return head, self._encodings[name]
        array = boxes_inside(boxes, self.size)
        with torch.inference_mode():
            network = torch.from_numpy(self.geometry.boxes_to_network(array)).to(self.model.device)
            # `head_for` found a head for given boxes.
            region_head = cast("RegionHead", head)
            return head, region_head.encode_boxes(self.model.backbone, self._features, [network])

    def detect(
        self,
        words: Words | TextClassifier,
        *,
        boxes: ArrayLike | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        nms_iou_threshold: float | None = None,
        masks: bool = True,
    ) -> Detections:
        """Find the objects that the words name.

        Args:
            words: one string a class, synonyms joined by ``|``; or a `Vocabulary`; or embeddings that take
                their place (`ovperception.class_embeddings`), with which nothing else competes.
            boxes: (N, 4) xyxy pixels of the presented image: name what is in these, instead of looking for
                boxes. They are embedded now, from what is kept of the image, and go through the same
                thresholds and suppression as any; a box may be returned with several classes, or with none.
            score_threshold: least score, 0-1. A class's own threshold goes before it; None: the model's.
            max_detections: most objects returned; None: the model's.
            nms_iou_threshold: of two objects of one class whose boxes overlap more than this the worse is
                dropped, 0-1; None: the model's.
            masks: whether to return masks as well, where the head makes them.

        Raises:
            InvalidVocabulary, InvalidParameter: the words or a number cannot be used.
            InvalidRegions: boxes of another shape, too many, not finite, or without area inside the image.
            Unsupported: the model has no head for this.
        """
        return self.draft_detections(
            words,
            boxes=boxes,
            score_threshold=score_threshold,
            max_detections=max_detections,
            nms_iou_threshold=nms_iou_threshold,
            masks=masks,
        )()

    @torch.inference_mode()
    def draft_detections(
        self,
        words: Words | TextClassifier,
        *,
        boxes: ArrayLike | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        nms_iou_threshold: float | None = None,
        masks: bool = True,
    ) -> Callable[[], Detections]:
        """The half of `detect` that needs the model and its device.

        Returns:
            The other half, to be called once, on any thread: masks are pasted and run-length encoded there.

        Raises:
            OVPError: as `detect`.
        """
        given = isinstance(words, TextClassifier)
        vocabulary = words.vocabulary if isinstance(words, TextClassifier) else Vocabulary.from_words(words)
        limit = self._count("max_detections", max_detections, 100)
        least = self._unit("score_threshold", score_threshold, 0.0)
        overlap = self._unit("nms_iou_threshold", nms_iou_threshold, math.nan)
        head, encoding = self._seen_by("detect", boxes)
        text = self.model.classifier(words if given else self.model.with_competitors(vocabulary))
        scores = _asked(head.classify(encoding, text), len(vocabulary))
        if isinstance(scores, BoxScores):
            return draft_boxes(
                scores,
                self.geometry,
                vocabulary,
                score_threshold=least,
                iou_threshold=0.5 if math.isnan(overlap) else overlap,
                max_detections=limit,
                segment=self._segmenter(head) if masks else None,
            )
        if not isinstance(scores, MaskScores):
            raise Unsupported("This head gives no objects", field="task", got="detect")
        finish = draft_instances(
            scores,
            self.geometry,
            vocabulary,
            score_threshold=least,
            max_detections=limit,
            iou_threshold=None if math.isnan(overlap) else overlap,
        )
        return finish if masks else lambda: dataclasses.replace(finish(), masks=None)

    def _segmenter(self, head: Head) -> Callable[[Tensor], Tensor | None] | None:
        if not isinstance(head, RegionHead):
            return None
        return lambda boxes: head.segment_boxes(self.model.backbone, self._features, boxes)

    @torch.inference_mode()
    def proposals(self, source: str | None = None) -> NDArray[np.float32]:
        """The boxes that a head looked at before it knew any words, to be given to `detect`.

        Args:
            source: name of a head: what its proposer found, or the boxes around its masks; None: the first
                head that has either. So a region head can classify what a mask head found.

        Returns:
            (N, 4) float32 xyxy pixels of the presented image, each with an area.

        Raises:
            InvalidParameter: no head of this name has regions.
        """
        able = {k: e for k, e in self._encodings.items() if isinstance(e, RegionEncoding | MaskEncoding)}
        name = next(iter(able), "") if source is None else source
        encoding = able.get(name)
        if encoding is None:
            raise InvalidParameter(
                "No head of this name has regions",
                field="source",
                expected=" or ".join(able) or "a model with a region or mask head",
                got=source,
            )
        if isinstance(encoding, RegionEncoding):
            found = self.geometry.boxes_to_original(encoding[0].boxes[0].float().cpu().numpy())
            return found[(found[:, 2:] > found[:, :2]).all(1)]
        return mask_boxes(encoding.mask_logits[0], self.geometry)

    @torch.inference_mode()
    def semantic(self, words: Words, *, score_threshold: float | None = None) -> SemanticMap:
        """Give every pixel one of the words.

        Args:
            words: one string a class, synonyms joined by ``|``; or a `Vocabulary`. All pixels are shared
                out among them: the background takes no part.
            score_threshold: pixels that score less stay undecided (-1); None: the model's.

        Raises:
            InvalidVocabulary, InvalidParameter, Unsupported: as for `detect`.
        """
        vocabulary = Vocabulary.from_words(words)
        least = self._unit("score_threshold", score_threshold, 0.0, key="semantic_score_threshold")
        scores = self.scores("semantic", vocabulary)
        if not isinstance(scores, MaskScores | PixelScores | TextPixelScores):
            raise Unsupported("This head gives no maps", field="task", got="semantic")
        return semantic(scores, self.geometry, vocabulary, score_threshold=least)

    @torch.inference_mode()
    def panoptic(self, words: Words, *, score_threshold: float | None = None) -> PanopticMap:
        """Give every pixel to one object or region that the words name, or to none.

        Args:
            words: one string a class, synonyms joined by ``|``; or a `Vocabulary`, which tells things from
                stuff. What the background wins stays void.
            score_threshold: masks that score less are left out, 0-1; None: the model's.

        Raises:
            InvalidVocabulary, InvalidParameter, Unsupported: as for `detect`.
        """
        vocabulary = Vocabulary.from_words(words)
        least = self._unit("score_threshold", score_threshold, 0.0, key="panoptic_score_threshold")
        extended = self.model.with_competitors(vocabulary)
        scores = self.scores("panoptic", extended)
        if not isinstance(scores, MaskScores):
            raise Unsupported("This head gives no segments", field="task", got="panoptic")
        overlap = self.model.card.defaults.get("overlap_threshold", 0.8)
        found = panoptic(
            scores,
            self.geometry,
            extended,
            score_threshold=least,
            overlap_threshold=overlap,
            rule=self.model.card.panoptic_rule,
        )
        return found if extended is vocabulary else _without_background(found, vocabulary)

    @torch.inference_mode()
    def heatmap(self, text: str) -> NDArray[np.float32]:
        """(H, W) float32: cosine similarity, -1 to 1, of every place with a text.

        By the embeddings of the head for maps if it has one for each pixel, else the backbone's own view.
        """
        classifier = self.model.classifier([text])
        if "semantic" in self.model.tasks:
            name, head = self.model.head_for("semantic")
            if isinstance(self._encodings[name], PixelEncoding):
                scores = head.classify(self._encodings[name], classifier)
                if isinstance(scores, TextPixelScores):
                    return _painted(scores, self.geometry)
        dense = self.model.backbone.embed_dense(self._features)[0]  # (D, h, w)
        cells = torch.einsum("td,dhw->thw", classifier.embeddings.to(dense), dense).amax(0)
        height, width = self.geometry.padded
        grown = F.interpolate(cells[None, None], size=(height, width), mode="bilinear", align_corners=False)
        inside = grown[..., : self.geometry.resized[0], : self.geometry.resized[1]]
        fitted = F.interpolate(inside, size=self.size, mode="bilinear", align_corners=False)[0, 0]
        return cast("NDArray[np.float32]", fitted.float().cpu().numpy())

    @torch.inference_mode()
    def embed_regions(self, boxes: ArrayLike) -> NDArray[np.float32]:
        """(N, D) unit-length text-aligned embeddings of boxes.

        Args:
            boxes: (N, 4) xyxy pixels of the presented image.

        Raises:
            InvalidRegions: another shape, too many, not finite, or a box without area inside the image.
        """
        array = boxes_inside(boxes, self.size)
        network = torch.from_numpy(self.geometry.boxes_to_network(array)).to(self.model.device)
        embeddings = self.model.backbone.embed_boxes(self._features, [network]).float()
        return cast("NDArray[np.float32]", F.normalize(embeddings, dim=-1).cpu().numpy())

    def _default(self, key: str, value: float | None, fallback: float) -> float:
        return self.model.card.defaults.get(key, fallback) if value is None else value

    def _count(self, name: str, value: int | None, fallback: int) -> int:
        count = self._default(name, value, fallback)
        is_number = isinstance(count, int | float | np.number) and not isinstance(count, bool)
        if not is_number or not 1 <= count < math.inf or count != int(count):
            raise InvalidParameter(
                f"{name} is out of range", field=name, expected="a whole number, 1 or more", got=count
            )
        return int(count)

    def _unit(self, name: str, value: float | None, fallback: float, key: str = "") -> float:
        if value is None:
            return self.model.card.defaults.get(key or name, fallback)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
            raise InvalidParameter(
                f"{name} is out of range", field=name, expected="a number from 0 to 1", got=value
            )
        return float(value)


def _painted(scores: TextPixelScores, geometry: Geometry) -> NDArray[np.float32]:
    similarities = scores.similarities.float()
    resizer = Resizer(geometry, scores.grid, scores.device, align_corners=scores.align_corners)
    height, width = geometry.original
    return cast("NDArray[np.float32]", resizer.one(similarities, Window(0, height, 0, width)).cpu().numpy())


def _asked(scores: Scores, classes: int) -> Scores:
    """The first K columns; of mask scores, what the rest won becomes "void"."""
    if isinstance(scores, MaskScores) and scores.probabilities.shape[1] > classes + 1:
        kept = scores.probabilities[:, :classes]
        void = (1 - kept.sum(dim=1, keepdim=True)).clamp(min=0)
        return MaskScores(probabilities=torch.cat((kept, void), dim=1), mask_logits=scores.mask_logits)
    if isinstance(scores, BoxScores) and scores.scores.shape[1] > classes:
        boxes = scores.boxes[:, :classes] if scores.boxes.ndim == 3 else scores.boxes
        return dataclasses.replace(scores, scores=scores.scores[:, :classes], boxes=boxes)
    return scores


def _without_background(found: PanopticMap, vocabulary: Vocabulary) -> PanopticMap:
    """Background segments become void; the rest is numbered from 1 again."""
    table = np.zeros(max((s.id for s in found.segments), default=0) + 1, np.int32)
    kept = [s for s in found.segments if s.class_id < len(vocabulary)]
    for number, segment in enumerate(kept, start=1):
        table[segment.id] = number
    segments = tuple(dataclasses.replace(s, id=int(table[s.id])) for s in kept)
    return PanopticMap(classes=vocabulary.names, ids=table[found.ids], segments=segments)
