"""An image a server knows: the questions of `ovperception.Scene`, asked over the wire."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ovperception.client.calls import Calls
from ovperception.client.handles import Words
from ovperception.client.questions import Questions
from ovperception.client.remote_image import RemoteImage
from ovperception.structures import Detections, PanopticMap, SemanticMap

__all__ = ["RemoteScene"]


class RemoteScene:
    """An encoded image on a server. Made by `Client.encode`.

    The server keeps a bounded number of images. If it has dropped this one, the next question sends the
    picture again by itself. Safe to use from several threads.
    """

    def __init__(self, calls: Calls, questions: Questions, image: RemoteImage) -> None:
        self._calls = calls
        self._questions = questions
        self._image = image

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the presented image; zeros until the server has seen it."""
        return self._image.size

    @property
    def image_id(self) -> str:
        """The server's handle of the image; empty if it keeps none."""
        return self._image.image_id

    def detect(
        self,
        words: Words,
        *,
        boxes: ArrayLike | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        nms_iou_threshold: float | None = None,
        masks: bool = True,
    ) -> Detections:
        """The objects that `words` name; see `ovperception.Scene.detect`."""
        return self._calls.run(
            self._questions.detect(
                self._image,
                words,
                boxes=boxes,
                score_threshold=score_threshold,
                max_detections=max_detections,
                nms_iou_threshold=nms_iou_threshold,
                masks=masks,
            )
        )

    def semantic(
        self,
        words: Words,
        *,
        score_threshold: float | None = None,
        scores: bool = False,
    ) -> SemanticMap:
        """A class per pixel; see `ovperception.Scene.semantic`.

        Args:
            words: The classes.
            score_threshold: Pixels that score less stay undecided; None means the model's own.
            scores: Whether to fetch every pixel's score too: four bytes a pixel before compression.
        """
        return self._calls.run(
            self._questions.semantic(self._image, words, score_threshold=score_threshold, scores=scores)
        )

    def panoptic(self, words: Words, *, score_threshold: float | None = None) -> PanopticMap:
        """A segment per pixel; see `ovperception.Scene.panoptic`."""
        return self._calls.run(self._questions.panoptic(self._image, words, score_threshold=score_threshold))

    def heatmap(self, text: str) -> NDArray[np.float32]:
        """(H, W): how well each pixel fits `text`; see `ovperception.Scene.heatmap`."""
        return self._calls.run(self._questions.heatmap(self._image, text))

    def embed_regions(self, boxes: ArrayLike) -> NDArray[np.float32]:
        """(N, D): one vector per (N, 4) xyxy box; see `ovperception.Scene.embed_regions`."""
        return self._calls.run(self._questions.embed_regions(self._image, boxes))

    def close(self) -> None:
        """Let the server forget the image; without it the server does so by itself in a while."""
        self._calls.run(self._questions.forget(self._image))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
