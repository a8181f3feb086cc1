"""An image a server knows, for asyncio; the questions of `RemoteScene`."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ovperception.client.async_calls import AsyncCalls
from ovperception.client.handles import Words
from ovperception.client.questions import Questions
from ovperception.client.remote_image import RemoteImage
from ovperception.structures import Detections, PanopticMap, SemanticMap

__all__ = ["AsyncRemoteScene"]


class AsyncRemoteScene:
    """An encoded image on a server. Made by `AsyncClient.encode`.

    The server keeps a bounded number of images. If it has dropped this one, the next question sends the
    picture again by itself.
    """

    def __init__(self, calls: AsyncCalls, questions: Questions, image: RemoteImage) -> None:
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

    async def detect(
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
        return await self._calls.run(
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

    async def semantic(
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
        return await self._calls.run(
            self._questions.semantic(self._image, words, score_threshold=score_threshold, scores=scores)
        )

    async def panoptic(self, words: Words, *, score_threshold: float | None = None) -> PanopticMap:
        """A segment per pixel; see `ovperception.Scene.panoptic`."""
        return await self._calls.run(
            self._questions.panoptic(self._image, words, score_threshold=score_threshold)
        )

    async def heatmap(self, text: str) -> NDArray[np.float32]:
        """(H, W): how well each pixel fits `text`; see `ovperception.Scene.heatmap`."""
        return await self._calls.run(self._questions.heatmap(self._image, text))

    async def embed_regions(self, boxes: ArrayLike) -> NDArray[np.float32]:
        """(N, D): one vector per (N, 4) xyxy box; see `ovperception.Scene.embed_regions`."""
        return await self._calls.run(self._questions.embed_regions(self._image, boxes))

    async def close(self) -> None:
        """Let the server forget the image; without it the server does so by itself in a while."""
        await self._calls.run(self._questions.forget(self._image))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
