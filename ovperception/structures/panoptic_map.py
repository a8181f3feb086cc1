"""A segment for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidRegions
from ovperception.structures.arrays import as_array, canvas, category_numbers, plane_shape, shortest

if TYPE_CHECKING:
    from ovperception.images import ImageSource

__all__ = ["CocoPanoptic", "CocoSegment", "PanopticJSON", "PanopticMap", "Segment", "SegmentJSON"]

# COCO's panoptic pictures keep an id in three bytes: R + 256 G + 65536 B.
_MAX_SEGMENT_ID = 2**24 - 1

# "class" is a keyword, hence the other spelling of TypedDict.
SegmentJSON = TypedDict(
    "SegmentJSON", {"id": int, "class": str, "score": float, "area": int, "is_thing": bool}
)


class PanopticJSON(TypedDict):
    """`PanopticMap` as ``ovp predict --json`` prints it."""

    segments: list[SegmentJSON]
    id_map: str


class CocoSegment(TypedDict):
    """One segment of a COCO panoptic annotation; the box is x, y, width, height."""

    id: int
    category_id: int
    area: int
    bbox: list[int]
    iscrowd: int


class CocoPanoptic(TypedDict):
    """One image of a COCO panoptic result file."""

    image_id: int
    file_name: str
    segments_info: list[CocoSegment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of a `PanopticMap`; `area` in pixels, `score` 0-1."""

    id: int
    class_id: int
    score: float
    area: int
    is_thing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticMap:
    """A segment for every pixel.

    Attributes:
        classes: the K class names asked for; `Segment.class_id` indexes them.
        ids: (H, W) int32 segment id per pixel, 0 = void.
        segments: one entry per id present in `ids`.
    """

    classes: tuple[str, ...]
    ids: NDArray[np.int32]
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        shape = plane_shape(self.ids, "ids")
        object.__setattr__(self, "ids", as_array(self.ids, np.int32, shape, "ids"))
        ids = [segment.id for segment in self.segments]
        if len(set(ids)) != len(ids) or any(not 0 < i <= _MAX_SEGMENT_ID for i in ids):
            raise InvalidRegions(
                "Segment ids must differ and fit three bytes",
                field="segments",
                expected=f"1 to {_MAX_SEGMENT_ID}, each once",
                got=ids,
            )
        for segment in self.segments:
            if not 0 <= segment.class_id < len(self.classes):
                raise InvalidRegions("A segment has no class", field="segments", got=segment)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the presented image."""
        return self.ids.shape[0], self.ids.shape[1]

    def to_coco(
        self, image_id: int, file_name: str, category_ids: Sequence[int] | None = None
    ) -> CocoPanoptic:
        """One image's entry of a COCO panoptic result file; `save_png` writes the picture it names.

        Args:
            image_id: the image's id in the annotation file.
            file_name: name of the PNG, relative to the folder of the result.
            category_ids: (K,) the annotation file's category id of each class; the index by default.
        """
        categories = category_numbers(category_ids, len(self.classes))
        infos: list[CocoSegment] = []
        for segment in self.segments:
            infos.append(
                {
                    "id": segment.id,
                    "category_id": categories[segment.class_id],
                    "area": segment.area,
                    "bbox": _segment_box(self.ids == segment.id),
                    "iscrowd": 0,
                }
            )
        return {"image_id": image_id, "file_name": file_name, "segments_info": infos}

    def to_json(self, id_map_path: str | Path) -> PanopticJSON:
        """What ``ovp predict --json`` prints, given where `save_png` wrote the map."""
        segments: list[SegmentJSON] = [
            {
                "id": segment.id,
                "class": self.classes[segment.class_id],
                "score": shortest(segment.score),
                "area": segment.area,
                "is_thing": segment.is_thing,
            }
            for segment in self.segments
        ]
        return {"segments": segments, "id_map": str(id_map_path)}

    def save_png(self, path: str | Path) -> None:
        """Write the ids as COCO does: an RGB PNG with id = R + 256 G + 65536 B, 0 = void.

        Raises:
            InvalidRegions: an id does not fit three bytes.
        """
        from ovperception.images import encode_png, write_file

        low, high = int(self.ids.min()), int(self.ids.max())
        if low < 0 or high > _MAX_SEGMENT_ID:
            raise InvalidRegions("Segment ids must fit three bytes", field="ids", got=f"{low} to {high}")
        rgb = np.stack([self.ids >> shift & 255 for shift in (0, 8, 16)], axis=2)
        write_file(path, encode_png(rgb.astype(np.uint8)))

    def draw(self, image: ImageSource) -> NDArray[np.uint8]:
        """A copy of the image with every segment tinted, outlined and named, (H, W, 3) uint8 RGB.

        Raises:
            InvalidImage: not an image, or not of `size`.
        """
        from ovperception.drawing import draw_panoptic

        return draw_panoptic(canvas(image, self.size), self)


def _segment_box(mask: NDArray[np.bool_]) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return [0, 0, 0, 0]
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
