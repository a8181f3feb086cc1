"""A picture as a client and a server know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ovperception.client import scaling
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import image_pb2

__all__ = ["RemoteImage"]

A = TypeVar("A", bound=Detections | SemanticMap | PanopticMap | NDArray[np.float32])
_UNKNOWN = (0, 0)


@dataclass(slots=True)
class RemoteImage:
    """A picture as a client and a server know it.

    Attributes:
        picture: What is sent.
        image_id: The server's handle; empty if it keeps none.
        size: (height, width) as presented; zeros until the server has seen it.
        shrunk: (height, width) of what is sent, if that is smaller than `size`; else zeros.
    """

    picture: image_pb2.Image
    image_id: str = ""
    size: scaling.Size = _UNKNOWN
    shrunk: scaling.Size = _UNKNOWN

    def fit(self, max_pixels: int | None) -> bool:
        """Make what is sent smaller, if it has more pixels; whether it had.

        A picture that the server keeps, or has taken as it is, stays so.
        """
        if not max_pixels or self.image_id or (self.size != _UNKNOWN and self.shrunk == _UNKNOWN):
            return False
        done = scaling.shrink(self.picture, max_pixels)
        if done is None:
            return False
        self.picture, size = done
        if self.shrunk == _UNKNOWN:
            self.size = size
        self.shrunk = scaling.size_of(self.picture)
        return True

    def seen(self, image_id: str, size: scaling.Size) -> None:
        """The server has seen a picture of this size, and keeps it under this handle, if any."""
        self.image_id = image_id
        if self.shrunk == _UNKNOWN:
            self.size = size

    def boxes_sent(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 4) xyxy boxes of the presented image in pixels of what is sent."""
        if self.shrunk == _UNKNOWN:
            return boxes
        return scaling.scale_boxes(boxes, self.size, self.shrunk)

    def restore(self, found: A) -> A:
        """An answer about what was sent, as one about the presented image."""
        size = (found.shape[0], found.shape[1]) if isinstance(found, np.ndarray) else found.size
        if self.shrunk == _UNKNOWN or size == self.size:
            return found
        return scaling.restore(found, self.size)
