"""Answers as pictures, with OpenCV alone.

Every function takes an (H, W, 3) uint8 RGB picture and returns a new one of the same size. Lines and letters
grow with the picture. OpenCV 5 writes all the letters its built-in font has; OpenCV 4 knows ASCII only and
puts a question mark for the rest.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidImage, InvalidParameter
from ovperception.structures import Detections, PanopticMap, SemanticMap

__all__ = [
    "colours",
    "draw_detections",
    "draw_heatmap",
    "draw_panoptic",
    "draw_semantic",
    "grid",
    "legend",
]

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Each the farthest from all before it in CIE Lab, among colours neither dark, pale nor grey; then muted.
# fmt: off
_PALETTE = (
    0xEC5E44, 0x11EC11, 0xAC11EC, 0x11C5EC, 0x78852B, 0x9F5E92, 0x11DF9F, 0x1178EC, 0xECAC11, 0xEC1EB8,
    0xACD211, 0xECAC85, 0x1E856B, 0xD22B6B, 0x119F1E, 0xC578EC, 0x9FACEC, 0x9F6B11, 0xACD292, 0xAC5E5E,
    0x5EDFD2, 0xD2C55E, 0xECACDF, 0x2B78AC, 0x785EEC, 0x92DF6B, 0xEC78C5, 0xDF7811, 0x786BB8, 0x119F5E,
    0xB82BC5, 0x11DF5E, 0xEC859F, 0xEC1151, 0xEC1111, 0xB89F5E, 0xD27851, 0x1192EC, 0x6BD211, 0x85AC2B,
)
# fmt: on
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _INK = (255, 255, 255), (20, 20, 24)
# Labels may hide this share of a picture; what is placed first is written.
_MOST_LABELS = 0.35
_PAPER = (250, 250, 250)


def colours(names: Sequence[str]) -> NDArray[np.uint8]:
    """A colour for each class, (K, 3) uint8 RGB.

    A name keeps its colour whatever it is asked together with, unless an earlier name of the list has taken
    it; up to 40 names get 40 different colours.
    """
    taken: set[int] = set()
    chosen = np.zeros((len(names), 3), dtype=np.uint8)
    for k, name in enumerate(names):
        if len(taken) == len(_PALETTE):
            taken.clear()
        # crc32 and not hash(): the latter differs from one process to the next.
        place = zlib.crc32(name.encode()) % len(_PALETTE)
        while place in taken:
            place = (place + 1) % len(_PALETTE)
        taken.add(place)
        chosen[k] = [_PALETTE[place] >> shift & 255 for shift in (16, 8, 0)]
    return chosen


def draw_detections(
    image: Picture, detections: Detections, *, labels: bool = True, opacity: float = 0.4
) -> Picture:
    """Boxes, masks if there are any, and "name score" labels.

    Args:
        image: (H, W, 3) uint8 RGB, the presented image.
        detections: what was found in it.
        labels: write the names.
        opacity: how strongly the masks tint, 0-1.
    """
    canvas = _copy(image)
    style = _Style.of(canvas)
    palette = colours(detections.classes)
    by_size = np.argsort(-_areas(detections.boxes), kind="stable")  # small objects stay visible on large ones
    if detections.masks is not None:
        for i in by_size:
            crop, top, left = detections.masks[i].decode_crop()
            _tint(canvas, crop, top, left, _colour(palette[detections.class_ids[i]]), opacity, style)
    for i in by_size:
        x0, y0, x1, y1 = _corners(detections.boxes[i], canvas)
        width = style.line if detections.masks is None else max(1, style.line // 2)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), _colour(palette[detections.class_ids[i]]), width)
    if labels:
        writer = _Writer(canvas, style)
        for i, name in enumerate(detections.names):  # the best score gets the best place
            text = f"{name} {detections.scores[i]:.2f}"
            corners = _corners(detections.boxes[i], canvas)
            writer.at_box(text, corners, _colour(palette[detections.class_ids[i]]))
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
    canvas = _copy(image)
    style = _Style.of(canvas)
    present = semantic.present
    palette = colours(semantic.classes)
    table = np.concatenate([np.zeros((1, 3), np.uint8), palette])
    _tint_map(canvas, semantic.labels + 1, table, opacity, style)
    if labels:
        writer = _Writer(canvas, style)
        for k in present:
            if (place := _middle(semantic.labels == k)) is not None:
                writer.at_point(semantic.classes[k], place, _colour(palette[k]))
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
    canvas = _copy(image)
    style = _Style.of(canvas)
    palette = colours(panoptic.classes)
    table = np.zeros((len(panoptic.segments) + 1, 3), dtype=np.uint8)
    index = np.zeros(panoptic.ids.shape, dtype=np.int32)
    seen: dict[int, int] = {}
    places = []
    for row, segment in enumerate(panoptic.segments, start=1):
        mask = panoptic.ids == segment.id
        index[mask] = row
        nth = seen[segment.class_id] = seen.get(segment.class_id, -1) + 1
        table[row] = _shade(palette[segment.class_id], nth if segment.is_thing else 0)
        if labels and (place := _middle(mask)) is not None:
            places.append((panoptic.classes[segment.class_id], place, _colour(table[row])))
    _tint_map(canvas, index, table, opacity, style)
    writer = _Writer(canvas, style)
    for text, place, colour in places:
        writer.at_point(text, place, colour)
    writer.write()
    return canvas


def draw_heatmap(
    image: Picture,
    heat: NDArray[np.floating],
    *,
    limits: tuple[float, float] | None = None,
    opacity: float = 0.65,
) -> Picture:
    """Similarity over the picture, from blue (low, faint) to red (high, strong).

    Args:
        image: (H, W, 3) uint8 RGB, the presented image.
        heat: (H, W); what is not finite counts as low.
        limits: what counts as lowest and highest; the map's own extremes by default, so that pictures drawn
            without limits cannot be compared with each other.
        opacity: how strongly the highest value tints, 0-1.

    Raises:
        InvalidParameter: the map is of another size, or the limits are not ascending.
    """
    canvas = _copy(image)
    if heat.shape != canvas.shape[:2]:
        raise InvalidParameter(
            "The heat map is not of the image's size", expected=str(canvas.shape[:2]), got=heat.shape
        )
    finite = np.isfinite(heat)
    if limits is None:
        limits = (float(heat[finite].min()), float(heat[finite].max())) if finite.any() else (0.0, 0.0)
    elif not limits[0] < limits[1]:
        raise InvalidParameter("The limits must ascend", field="limits", got=limits)
    low, high = limits
    values = np.where(finite, heat, low).astype(np.float32)
    values = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
    levels = (values * 255).astype(np.uint8)
    painted = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1]
    # Low values stay faint, so that the picture can still be recognised where nothing is.
    strength = (opacity * (0.35 + 0.65 * values))[..., None]
    return (canvas * (1 - strength) + painted * strength + 0.5).astype(np.uint8)


def legend(classes: Sequence[str], *, present: Sequence[int] | None = None, width: int = 640) -> Picture:
    """Names beside their colours, (h, width, 3); as high as needed.

    Args:
        classes: all class names, so that the colours are those of the other drawings.
        present: the class ids to show; all by default.
        width: in pixels.
    """
    palette = colours(classes)
    shown = range(len(classes)) if present is None else present
    size, gap = 16, 10
    places: list[tuple[int, int, int]] = []
    x, y = gap, gap
    for k in shown:
        needed = size + gap // 2 + _text_size(classes[k], size)[0] + 2 * gap
        if x > gap and x + needed > width:
            x, y = gap, y + size + gap
        places.append((k, x, y))
        x += needed
    canvas = np.full((y + size + gap if places else 2 * gap, width, 3), _PAPER, dtype=np.uint8)
    for k, x, y in places:
        cv2.rectangle(canvas, (x, y), (x + size - 1, y + size - 1), _colour(palette[k]), cv2.FILLED)
        _put(canvas, classes[k], x + size + gap // 2, y, size, _INK)
    return canvas


def grid(
    pictures: Sequence[Picture],
    titles: Sequence[str] = (),
    *,
    columns: int | None = None,
    cell: tuple[int, int] | None = None,
) -> Picture:
    """Pictures side by side under their titles, on white.

    Args:
        pictures: each (H, W, 3) uint8 RGB, of any sizes; each is fitted into its cell.
        titles: one a picture, or none at all.
        columns: by default all pictures in one row up to four, and four a row beyond.
        cell: (height, width) of a cell; the first picture's size by default.

    Raises:
        InvalidParameter: no pictures, or not as many titles.
    """
    if not pictures or (titles and len(titles) != len(pictures)):
        raise InvalidParameter(
            "A grid needs pictures, and a title for each or none",
            got=f"{len(pictures)} pictures, {len(titles)} titles",
        )
    height, width = cell or pictures[0].shape[:2]
    columns = max(1, min(columns or 4, len(pictures)))
    rows = -(-len(pictures) // columns)
    gap = max(4, min(height, width) // 50)
    letters = int(np.clip(math.sqrt(height * width) * 0.045, 11, 40)) if titles else 0
    head = letters + gap if titles else 0
    pitch = (height + head + gap, width + gap)
    canvas = np.full((rows * pitch[0] + gap, columns * pitch[1] + gap, 3), _PAPER, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        top, left = gap + i // columns * pitch[0], gap + i % columns * pitch[1]
        if titles:
            _put(canvas, _fit(titles[i], letters, width), left, top, letters, _INK)
        fitted = _fitted(_copy(picture), height, width)
        y, x = top + head + (height - fitted.shape[0]) // 2, left + (width - fitted.shape[1]) // 2
        canvas[y : y + fitted.shape[0], x : x + fitted.shape[1]] = fitted
    return canvas


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes in pixels that suit a picture."""

    line: int
    letters: int
    outline: int

    @classmethod
    def of(cls, canvas: Picture) -> _Style:
        scale = math.sqrt(canvas.shape[0] * canvas.shape[1])
        return cls(
            line=int(np.clip(round(scale / 270), 1, 12)),
            letters=int(np.clip(round(scale / 40), 10, 80)),
            outline=int(np.clip(round(scale / 600), 1, 8)),
        )


Rectangle = tuple[int, int, int, int]


@dataclass(slots=True)
class _Writer:
    """Finds places for labels, inside the picture and clear of each other, then writes them."""

    canvas: Picture
    style: _Style
    labels: list[tuple[str, Rectangle, Colour]] = field(default_factory=list)

    def at_box(self, text: str, box: Rectangle, colour: Colour) -> None:
        """Above the box if there is room, else inside, below or beside it."""
        text, width, height = self._measure(text)
        x0, y0, x1, y1 = box
        self._place(
            text,
            colour,
            width,
            height,
            [
                (x0, y0 - height),
                (x0, y0),
                (x1 - width, y0 - height),
                (x0, y1),
                (x1 - width, y1),
                (x0, y1 - height),
                (x1, y0),
                (x0 - width, y0),
                (x0, (y0 + y1 - height) // 2),
                (x0, y0 - 2 * height),
                (x0, y1 + height),
            ],
        )

    def at_point(self, text: str, centre: tuple[int, int], colour: Colour) -> None:
        """Centred on (x, y) if there is room, else a little off."""
        text, width, height = self._measure(text)
        x, y = centre[0] - width // 2, centre[1] - height // 2
        shifts = [(0, 0), (0, -height), (0, height), (-width // 2, 0), (width // 2, 0)]
        shifts += [(0, -2 * height), (0, 2 * height), (-width, 0), (width, 0)]
        self._place(text, colour, width, height, [(x + dx, y + dy) for dx, dy in shifts])

    def write(self) -> None:
        """Draw all labels, the first placed on top."""
        pad = self._pad
        for text, (x0, y0, x1, y1), colour in reversed(self.labels):
            cv2.rectangle(self.canvas, (x0, y0), (x1 - 1, y1 - 1), colour, cv2.FILLED)
            ink = _INK if np.dot(colour, (0.299, 0.587, 0.114)) > 125 else _WHITE
            _put(self.canvas, text, x0 + pad, y0 + pad // 2, self.style.letters, ink)

    @property
    def _pad(self) -> int:
        return max(2, self.style.letters // 4)

    def _measure(self, text: str) -> tuple[str, int, int]:
        text = _fit(text, self.style.letters, self.canvas.shape[1] - 2 * self._pad)
        width, height = _text_size(text, self.style.letters)
        return text, width + 2 * self._pad, height + 2 * (self._pad // 2)

    def _place(
        self, text: str, colour: Colour, width: int, height: int, places: list[tuple[int, int]]
    ) -> None:
        rows, columns = self.canvas.shape[:2]
        used = width * height + sum(_overlap(spot, spot) for _, spot, _ in self.labels)
        if not text or height > rows or width > columns or used > _MOST_LABELS * rows * columns:
            return  # the picture is worth more than the words on it
        best: tuple[int, Rectangle] | None = None
        for x, y in places:
            x, y = min(max(x, 0), columns - width), min(max(y, 0), rows - height)
            spot = (x, y, x + width, y + height)
            covered = sum(_overlap(spot, other) for _, other, _ in self.labels)
            if best is None or covered < best[0]:
                best = covered, spot
            if not covered:
                break
        assert best is not None
        self.labels.append((text, best[1], colour))


def _overlap(a: Rectangle, b: Rectangle) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _copy(image: Picture) -> Picture:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise InvalidImage(
            "This cannot be drawn on", expected="(H, W, 3) uint8 RGB", got=f"{image.shape} {image.dtype}"
        )
    return image.copy(order="C")


def _colour(rgb: NDArray[np.uint8]) -> Colour:
    return int(rgb[0]), int(rgb[1]), int(rgb[2])


def _shade(rgb: NDArray[np.uint8], nth: int) -> NDArray[np.uint8]:
    """The class's own colour, then lighter and darker ones in turn."""
    towards, share = ((255, 0.0), (255, 0.35), (0, 0.3), (255, 0.55), (0, 0.5))[nth % 5]
    return np.round(rgb * (1 - share) + towards * share).astype(np.uint8)


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def _corners(box: NDArray[np.float32], canvas: Picture) -> Rectangle:
    """First and last pixel of a half-open box, within the picture."""
    rows, columns = canvas.shape[:2]
    whole = np.nan_to_num(box, nan=0.0, posinf=1e6, neginf=-1e6)
    x0, x1 = (int(np.clip(v, 0, columns - 1)) for v in (whole[0], math.ceil(whole[2]) - 1))
    y0, y1 = (int(np.clip(v, 0, rows - 1)) for v in (whole[1], math.ceil(whole[3]) - 1))
    return x0, y0, x1, y1


def _tint(
    canvas: Picture,
    mask: NDArray[np.uint8],
    top: int,
    left: int,
    colour: Colour,
    opacity: float,
    style: _Style,
) -> None:
    if mask.size == 0:
        return
    region = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    flat = np.full_like(region, colour)
    cv2.copyTo(cv2.addWeighted(region, 1 - opacity, flat, opacity, 0), mask, region)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    cv2.drawContours(canvas, contours, -1, colour, style.outline, cv2.LINE_AA)


def _tint_map(
    canvas: Picture, index: NDArray[np.int32], table: NDArray[np.uint8], opacity: float, style: _Style
) -> None:
    """Tint by table[index], leave index 0 as it is, and draw a light line between different indices."""
    tinted = cv2.addWeighted(canvas, 1 - opacity, table[index], opacity, 0)
    cv2.copyTo(tinted, (index > 0).astype(np.uint8), canvas)
    edges = np.zeros(index.shape, dtype=np.uint8)
    edges[:, 1:] |= index[:, 1:] != index[:, :-1]
    edges[1:] |= index[1:] != index[:-1]
    if style.outline > 1:
        edges = cast("NDArray[np.uint8]", cv2.dilate(edges, np.ones((style.outline,) * 2, np.uint8)))
    lines = cv2.addWeighted(canvas, 0.25, np.full_like(canvas, 255), 0.75, 0)
    cv2.copyTo(lines, edges, canvas)


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


def _fitted(picture: Picture, height: int, width: int) -> Picture:
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    if size == (picture.shape[1], picture.shape[0]):
        return picture
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cast("Picture", cv2.resize(picture, size, interpolation=how))


def _font_scale(letters: int) -> float:
    return cv2.getFontScaleFromHeight(_FONT, max(1, round(letters * 0.72)), 1)


def _text_size(text: str, letters: int) -> tuple[int, int]:
    """(width, height) of one line; the height is that of the line, whatever the letters."""
    (width, _), _ = cv2.getTextSize(text, _FONT, _font_scale(letters), _thickness(letters))
    return int(width), letters


def _thickness(letters: int) -> int:
    return max(1, round(letters / 18))


def _fit(text: str, letters: int, width: int) -> str:
    """The text, cut with an ellipsis if it is wider than `width` pixels."""
    text = " ".join(text.split())
    if _text_size(text, letters)[0] <= width:
        return text
    while text and _text_size(f"{text}..", letters)[0] > width:
        text = text[:-1]
    return f"{text}.." if text else ""


def _put(canvas: Picture, text: str, x: int, y: int, letters: int, colour: Colour) -> None:
    """One line with its top left corner at (x, y)."""
    baseline = y + round(letters * 0.8)
    scale, thickness = _font_scale(letters), _thickness(letters)
    cv2.putText(canvas, text, (x, baseline), _FONT, scale, colour, thickness, cv2.LINE_AA)
