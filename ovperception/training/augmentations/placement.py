"""Where the pixels of a picture go: mirrored, resized, cut out of the result, all in one step.

Masks and panoptic maps are looked up at the nearest source pixel, which needs no resized copy and invents no
id; the picture is interpolated. All frames agree on half-pixel centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidParameter
from ovperception.training.augmentations.labelled_image import LabelledImage, tight_boxes

__all__ = ["Placement"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A view of a picture: flip, then resize, then cut a window out; (height, width) everywhere.

    Attributes:
        source: size of the picture.
        resized: size it takes.
        top, left: corner of the window in the resized picture.
        window: size of the window, within the resized picture.
        flip: whether left and right are exchanged first.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    top: int = 0
    left: int = 0
    window: tuple[int, int]
    flip: bool = False

    def __post_init__(self) -> None:
        ends = (self.top + self.window[0], self.left + self.window[1])
        if (
            min(*self.source, *self.window) < 1
            or min(self.top, self.left) < 0
            or ends[0] > self.resized[0]
            or ends[1] > self.resized[1]
        ):
            raise InvalidParameter("A window reaches beyond its picture, or has no pixels", got=self)

    def rows(self) -> NDArray[np.int64]:
        """(h,) row of the source that each row of the window shows."""
        return _nearest(self.top, self.window[0], self.resized[0], self.source[0])

    def columns(self) -> NDArray[np.int64]:
        """(w,) column of the source that each column of the window shows."""
        columns = _nearest(self.left, self.window[1], self.resized[1], self.source[1])
        return self.source[1] - 1 - columns if self.flip else columns

    def picture(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) to (h, w, 3): areas are averaged where it shrinks, pixels interpolated where it grows."""
        height, width = self.resized
        (top, left), (h, w) = (self.top, self.left), self.window
        if self.resized != self.source:
            shrinks = height * width < self.source[0] * self.source[1]
            if shrinks:
                image = cast(
                    "NDArray[np.uint8]", cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
                )
            else:
                return self._enlarged(image)
        if self.flip:
            image = image[:, ::-1]
        return np.ascontiguousarray(image[top : top + h, left : left + w])

    def _enlarged(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Only the window is computed: a picture twice the size would be four times the work."""
        across = self.source[1] / self.resized[1]
        down = self.source[0] / self.resized[0]
        x = (self.left + 0.5) * across - 0.5
        if self.flip:
            x, across = self.source[1] - 1 - x, -across
        y = (self.top + 0.5) * down - 0.5
        back = np.array([[across, 0, x], [0, down, y]], np.float64)
        placed = cv2.warpAffine(
            image,
            back,
            (self.window[1], self.window[0]),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return cast("NDArray[np.uint8]", placed)

    def map(self, values: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """(..., H, W) masks or ids to (..., h, w), each taken from the nearest source pixel."""
        return np.ascontiguousarray(values[..., self.rows()[:, None], self.columns()])

    def boxes(self, boxes: NDArray[Any]) -> NDArray[np.float32]:
        """(N, 4) xyxy of the source to xyxy of the window, cut at its border."""
        height, width = self.source
        moved = np.asarray(boxes, np.float64).reshape(-1, 4).copy()
        if self.flip:
            moved[:, [0, 2]] = width - moved[:, [2, 0]]
        moved *= np.tile([self.resized[1] / width, self.resized[0] / height], 2)
        moved -= np.tile([self.left, self.top], 2)
        return np.clip(moved, 0, np.tile([self.window[1], self.window[0]], 2)).astype(np.float32)

    def apply(self, sample: LabelledImage) -> LabelledImage:
        """The window of a picture with its truth; what is not seen in it any more is dropped.

        Boxes become those of what can be seen of the masks; where there are none, they are cut at the border,
        and a box that keeps less than a pixel of a side is dropped.
        """
        image = self.picture(sample.image)
        masks = None if sample.masks is None else self.map(sample.masks)
        panoptic = None if sample.panoptic is None else self.map(sample.panoptic)
        moved = LabelledImage(
            image=image,
            class_ids=sample.class_ids,
            boxes=self.boxes(sample.boxes),
            masks=masks,
            panoptic=panoptic,
            segment_ids=sample.segment_ids,
        )
        stack = moved.mask_stack()
        if stack is None:
            boxes = moved.boxes
            seen = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
        else:
            boxes = tight_boxes(stack)
            seen = boxes[:, 2] > boxes[:, 0]
        return LabelledImage(
            image=image,
            class_ids=sample.class_ids[seen],
            boxes=boxes[seen],
            masks=None if masks is None else masks[seen],
            panoptic=panoptic,
            segment_ids=None if sample.segment_ids is None else sample.segment_ids[seen],
        )


def _nearest(first: int, count: int, resized: int, source: int) -> NDArray[np.int64]:
    centres = (np.arange(first, first + count) * 2 + 1) * source
    return np.minimum(centres // (2 * resized), source - 1)
