"""Detections, semantic and panoptic maps drawn over the picture they are about."""

from __future__ import annotations

import math
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.drawing.canvas import Picture, Style, copy_of, tint, tint_map
from ovperception.drawing.labels import LabelWriter, Rectangle
from ovperception.drawing.palette import as_colour, colours, shade
from ovperception.structures import Detections, PanopticMap, SemanticMap

__all__ = ["draw_detections", "draw_panoptic", "draw_semantic"]


def draw_detections(
    image: Picture,
    detections: Detections,
    *,
    labels: bool = True,
    scores: bool = True,
    opacity: float = 0.4,
) -> Picture:
    """Boxes, masks if there are any, and "name score" labels.

    Args:
        image: (H, W, 3) uint8 RGB, the presented image.
        detections: what was found in it.
        labels: write the names.
        scores: write the scores behind them; a truth has none.
        opacity: how strongly the masks tint, 0-1.
    """
    canvas = copy_of(image)
    style = Style.of(canvas)
    palette = colours(detections.classes)
    by_size = np.argsort(-_areas(detections.boxes), kind="stable")  # small objects stay visible on large ones
    if detections.masks is not None:
        for i in by_size:
            crop, top, left = detections.masks[i].decode_crop()
            tint(canvas, crop, top, left, as_colour(palette[detections.class_ids[i]]), opacity, style)
    for i in by_size:
        x0, y0, x1, y1 = _corners(detections.boxes[i], canvas)
        width = style.line if detections.masks is None else max(1, style.line // 2)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), as_colour(palette[detections.class_ids[i]]), width)
    if labels:
        writer = LabelWriter(canvas, style)
        for i, name in enumerate(detections.names):  # the best score gets the best place
            text = f"{name} {detections.scores[i]:.2f}" if scores else name
            corners = _corners(detections.boxes[i], canvas)
            writer.at_box(text, corners, as_colour(palette[detections.class_ids[i]]))
        writer.write()
    return canvas


def draw_semantic(
    image: Picture, semantic: SemanticMap, *, labels: bool = True, opacity: float = 0.6
) -> Picture:
    """Every pixel tinted by its class; the names stand in the middle of the largest areas.

    Args:
        image: (H, W, 3) uint8 RGB, the presented image.
        semantic: its classes; undecided pixels keep the picture's own colour.
        labels: write the names.
        opacity: how strongly the classes tint, 0-1.
    """
    canvas = copy_of(image)
    style = Style.of(canvas)
    present = semantic.present
    palette = colours(semantic.classes)
    table = np.concatenate([np.zeros((1, 3), np.uint8), palette])
    tint_map(canvas, semantic.labels + 1, table, opacity, style)
    if labels:
        writer = LabelWriter(canvas, style)
        for k in present:
            if (place := _middle(semantic.labels == k)) is not None:
                writer.at_point(semantic.classes[k], place, as_colour(palette[k]))
        writer.write()
    return canvas


def draw_panoptic(
    image: Picture, panoptic: PanopticMap, *, labels: bool = True, opacity: float = 0.5
) -> Picture:
    """Every segment tinted, outlined and named; several things of a class differ in shade.

    Args:
        image: (H, W, 3) uint8 RGB, the presented image.
        panoptic: its segments; void keeps the picture's own colour.
        labels: write the names.
        opacity: how strongly the segments tint, 0-1.
    """
    canvas = copy_of(image)
    style = Style.of(canvas)
    palette = colours(panoptic.classes)
    table = np.zeros((len(panoptic.segments) + 1, 3), dtype=np.uint8)
    index = np.zeros(panoptic.ids.shape, dtype=np.int32)
    seen: dict[int, int] = {}
    places = []
    for row, segment in enumerate(panoptic.segments, start=1):
        mask = panoptic.ids == segment.id
        index[mask] = row
        nth = seen[segment.class_id] = seen.get(segment.class_id, -1) + 1
        table[row] = shade(palette[segment.class_id], nth if segment.is_thing else 0)
        if labels and (place := _middle(mask)) is not None:
            places.append((panoptic.classes[segment.class_id], place, as_colour(table[row])))
    tint_map(canvas, index, table, opacity, style)
    writer = LabelWriter(canvas, style)
    for text, place, colour in places:
        writer.at_point(text, place, colour)
    writer.write()
    return canvas


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def _corners(box: NDArray[np.float32], canvas: Picture) -> Rectangle:
    """First and last pixel of a half-open box, within the picture."""
    rows, columns = canvas.shape[:2]
    whole = np.nan_to_num(box, nan=0.0, posinf=1e6, neginf=-1e6)
    x0, x1 = (int(np.clip(v, 0, columns - 1)) for v in (whole[0], math.ceil(whole[2]) - 1))
    y0, y1 = (int(np.clip(v, 0, rows - 1)) for v in (whole[1], math.ceil(whole[3]) - 1))
    return x0, y0, x1, y1


def _middle(mask: NDArray[np.bool_], *, smallest: float = 0.0015) -> tuple[int, int] | None:
    """(x, y) farthest inside the mask; None if it is too small to carry a name."""
    rows, columns = mask.shape
    if np.count_nonzero(mask) < smallest * mask.size:
        return None
    step = max(1, max(rows, columns) // 256)
    small = np.pad(mask[step // 2 :: step, step // 2 :: step].astype(np.uint8), 1)
    distance = cv2.distanceTransform(small, cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(np.argmax(distance)), distance.shape)
    if distance[y, x] == 0:
        return None
    return (int(x) - 1) * step + step // 2, (int(y) - 1) * step + step // 2
