"""Pictures sent smaller than they are, and answers brought back to the size they have."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidImage
from ovperception.images import encode_png, load_image, read_header
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import image_pb2

__all__ = [
    "fit",
    "restore",
    "scale_boxes",
    "shrink",
    "size_of",
]

Size = tuple[int, int]
A = TypeVar("A", bound=Detections | SemanticMap | PanopticMap | NDArray[np.float32])


def shrink(picture: image_pb2.Image, max_pixels: int) -> tuple[image_pb2.Image, Size] | None:
    """A picture of at most so many pixels, and the (height, width) it had; None if it is no larger."""
    if picture.WhichOneof("source") not in {"encoded", "raw"}:
        return None
    height, width = size_of(picture)
    if height * width <= max_pixels:
        return None
    if picture.WhichOneof("source") == "raw":
        raw = picture.raw  # this client sends RGB without padding
        pixels = np.frombuffer(raw.data, np.uint8).reshape(raw.height, raw.width, 3)
    else:
        pixels = load_image(picture.encoded)
    scale = math.sqrt(max_pixels / (height * width))
    size = max(1, int(width * scale)), max(1, int(height * scale))
    smaller = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return image_pb2.Image(encoded=encode_png(np.asarray(smaller, np.uint8))), (height, width)


def fit(picture: image_pb2.Image, max_pixels: int | None) -> tuple[image_pb2.Image, Size | None]:
    """A picture as it is sent, and the (height, width) that answers are brought to, if that is smaller.

    What is no picture stays as it is: the server says so, of this one alone.
    """
    try:
        done = shrink(picture, max_pixels) if max_pixels else None
    except InvalidImage:
        return picture, None
    return (picture, None) if done is None else done


def size_of(picture: image_pb2.Image) -> Size:
    """(height, width) of an encoded picture as presented, or of a raw one."""
    if picture.WhichOneof("source") == "raw":
        return picture.raw.height, picture.raw.width
    return read_header(picture.encoded).size


def scale_boxes(boxes: NDArray[np.float32], source: Size, target: Size) -> NDArray[np.float32]:
    """(N, 4) xyxy boxes from an image of one (height, width) to one of another."""
    ratios = np.tile([target[1] / source[1], target[0] / source[0]], 2)
    return np.asarray(boxes * ratios, np.float32)


def restore(found: A, size: Size) -> A:
    """The same answer in an image of `size`."""
    restored: object
    match found:
        case Detections():
            restored = _detections(found, size)
        case SemanticMap():
            restored = _semantic(found, size)
        case PanopticMap():
            restored = _panoptic(found, size)
        case _:
            restored = _heatmap(found, size)
    return cast("A", restored)


def _detections(found: Detections, size: Size) -> Detections:
    masks = None
    if found.masks is not None:
        masks = tuple(RLE.encode(_nearest(mask.decode(), size)) for mask in found.masks)
    return replace(found, size=size, boxes=scale_boxes(found.boxes, found.size, size), masks=masks)


def _semantic(found: SemanticMap, size: Size) -> SemanticMap:
    scores = None if found.scores is None else _heatmap(found.scores, size)
    return replace(found, labels=_nearest(found.labels, size), scores=scores)


def _panoptic(found: PanopticMap, size: Size) -> PanopticMap:
    """The segments that are left."""
    ids = _nearest(found.ids, size)
    kept, counts = np.unique(ids, return_counts=True)
    areas = dict(zip(kept.tolist(), counts.tolist(), strict=True))
    segments = tuple(replace(s, area=areas[s.id]) for s in found.segments if s.id in areas)
    return replace(found, ids=ids, segments=segments)


def _heatmap(found: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(found, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _nearest(plane: NDArray[Any], size: Size) -> NDArray[Any]:
    rows = (np.arange(size[0]) * plane.shape[0] + plane.shape[0] // 2) // size[0]
    columns = (np.arange(size[1]) * plane.shape[1] + plane.shape[1] // 2) // size[1]
    return plane[np.ix_(np.minimum(rows, plane.shape[0] - 1), np.minimum(columns, plane.shape[1] - 1))]
