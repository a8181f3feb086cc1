"""Answers: boxes, masks and maps as numpy arrays, in pixels of the presented image.

All sizes are ``(height, width)``; boxes are ``xyxy`` float32 pixels, half-open; the presented image is the
one after its EXIF orientation was applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import (
    InvalidImage,
    InvalidParameter,
    InvalidRegions,
    MissingDependency,
    Unsupported,
)
from ovperception.rle import RLE, CocoRLE

if TYPE_CHECKING:
    import supervision

    from ovperception.images import ImageSource

__all__ = [
    "CocoPanoptic",
    "CocoResult",
    "CocoSegment",
    "DetectionJSON",
    "Detections",
    "DetectionsJSON",
    "PanopticJSON",
    "PanopticMap",
    "Segment",
    "SegmentJSON",
    "SemanticJSON",
    "SemanticMap",
]

# COCO's panoptic pictures keep an id in three bytes: R + 256 G + 65536 B.
_MAX_SEGMENT_ID = 2**24 - 1

# "class" is a keyword, hence the other spelling of TypedDict.
DetectionJSON = TypedDict(
    "DetectionJSON", {"class": str, "score": float, "box": list[float], "mask": NotRequired[CocoRLE]}
)
SegmentJSON = TypedDict(
    "SegmentJSON", {"id": int, "class": str, "score": float, "area": int, "is_thing": bool}
)


class DetectionsJSON(TypedDict):
    """`Detections` as ``ovp predict --json`` prints them; boxes are xyxy pixels."""

    detections: list[DetectionJSON]


class SemanticJSON(TypedDict):
    """`SemanticMap` as ``ovp predict --json`` prints it: the values of the map index the classes."""

    classes: list[str]
    label_map: str


class PanopticJSON(TypedDict):
    """`PanopticMap` as ``ovp predict --json`` prints it."""

    segments: list[SegmentJSON]
    id_map: str


class CocoResult(TypedDict):
    """One entry of a COCO result file; the box is x, y, width, height."""

    image_id: int
    category_id: int
    score: float
    bbox: list[float]
    segmentation: NotRequired[CocoRLE]


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
class Detections:
    """N detected objects, highest score first.

    Arrays of another number type are converted where nothing is lost but precision.

    Attributes:
        size: (height, width) of the presented image.
        classes: the K class names asked for; `class_ids` index them.
        boxes: (N, 4) float32 xyxy pixels.
        scores: (N,) float32, 0-1; beyond 1 by RegionCLIP's published rule alone (`ObjectnessRule`).
        class_ids: (N,) int64.
        masks: N run-length encoded masks of the whole image, or None if the head gives boxes only.

    Raises:
        InvalidRegions: the lengths differ, a class id has no class, or a mask is of another size.
    """

    size: tuple[int, int]
    classes: tuple[str, ...]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    masks: tuple[RLE, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.scores)
        for name, dtype, shape in (
            ("boxes", np.float32, (count, 4)),
            ("scores", np.float32, (count,)),
            ("class_ids", np.int64, (count,)),
        ):
            object.__setattr__(self, name, _array(getattr(self, name), dtype, shape, name))
        if count and not 0 <= self.class_ids.min() <= self.class_ids.max() < len(self.classes):
            raise InvalidRegions(
                "A class id has no class",
                field="class_ids",
                expected=f"0 to {len(self.classes) - 1}",
                got=f"{self.class_ids.min()} to {self.class_ids.max()}",
            )
        if self.masks is None:
            return
        if len(self.masks) != count or any(mask.size != self.size for mask in self.masks):
            raise InvalidRegions(
                "The masks do not fit the detections",
                field="masks",
                expected=f"{count} masks of (height, width) = {self.size}",
                got=f"{len(self.masks)} of {sorted({mask.size for mask in self.masks})}",
            )

    def __len__(self) -> int:
        """Number of detections N."""
        return len(self.scores)

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each detection."""
        return tuple(self.classes[i] for i in self.class_ids)

    def filter(self, keep: NDArray[np.bool_] | NDArray[np.integer] | Sequence[int] | slice) -> Self:
        """Some of the detections.

        Args:
            keep: (N,) bool, or the indices to keep in the order wanted, or a slice.
        """
        indices = np.arange(len(self))[keep if isinstance(keep, slice) else _selector(keep, len(self))]
        return type(self)(
            size=self.size,
            classes=self.classes,
            boxes=self.boxes[indices],
            scores=self.scores[indices],
            class_ids=self.class_ids[indices],
            masks=None if self.masks is None else tuple(self.masks[i] for i in indices),
        )

    def to_coco(self, image_id: int = 0, category_ids: Sequence[int] | None = None) -> list[CocoResult]:
        """The entries of a COCO result file.

        pycocotools takes a detection's area from "bbox" where there is one: drop it before measuring the AP
        of masks by size, as detectron2 does.

        Args:
            image_id: the image's id in the annotation file.
            category_ids: (K,) the annotation file's category id of each class; the index by default.
        """
        categories = _categories(category_ids, len(self.classes))
        results: list[CocoResult] = []
        for i, (x0, y0, x1, y1) in enumerate(self.boxes.tolist()):
            result: CocoResult = {
                "image_id": image_id,
                "category_id": categories[self.class_ids[i]],
                "score": float(self.scores[i]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            if self.masks is not None:
                result["segmentation"] = self.masks[i].to_coco()
            results.append(result)
        return results

    def to_json(self) -> DetectionsJSON:
        """What ``ovp predict --json`` prints under "detections"; numbers as short as float32 allows."""
        detections: list[DetectionJSON] = []
        for i, name in enumerate(self.names):
            detection: DetectionJSON = {
                "class": name,
                "score": _short(self.scores[i]),
                "box": [_short(side) for side in self.boxes[i]],
            }
            if self.masks is not None:
                detection["mask"] = self.masks[i].to_coco()
            detections.append(detection)
        return {"detections": detections}

    def to_supervision(self) -> supervision.Detections:
        """As `supervision.Detections`, with the names under ``data["class_name"]``.

        The masks are laid out: N x H x W bytes.

        Raises:
            MissingDependency: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingDependency(
                "supervision is not installed", mend="pip install 'ovperception[interop]'"
            ) from error
        masks = None
        if self.masks is not None:
            masks = np.zeros((len(self), *self.size), dtype=np.bool_)
            for i, mask in enumerate(self.masks):
                crop, top, left = mask.decode_crop()
                masks[i, top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            mask=masks,
            confidence=self.scores.copy(),
            class_id=self.class_ids.astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def draw(self, image: ImageSource) -> NDArray[np.uint8]:
        """A copy of the image with boxes, masks and names drawn on it, (H, W, 3) uint8 RGB.

        Raises:
            InvalidImage: not an image, or not of `size`.
        """
        from ovperception.drawing import draw_detections

        return draw_detections(_canvas(image, self.size), self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticMap:
    """A class for every pixel.

    Attributes:
        classes: the K class names asked for; labels index them.
        labels: (H, W) int32, 0 to K - 1, or -1 where nothing was decided.
        scores: (H, W) float32, the winning class's score; comparable within one image only.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shape = _plane_shape(self.labels, "labels")
        object.__setattr__(self, "labels", _array(self.labels, np.int32, shape, "labels"))
        if self.scores is not None:
            object.__setattr__(self, "scores", _array(self.scores, np.float32, shape, "scores"))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the presented image."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def present(self) -> tuple[int, ...]:
        """The class ids that occur, ascending.

        Raises:
            InvalidRegions: a label has no class.
        """
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < -1 or high >= len(self.classes):
            raise InvalidRegions(
                "A label has no class",
                field="labels",
                expected=f"-1 to {len(self.classes) - 1}",
                got=f"{low} to {high}",
            )
        counts = np.bincount(self.labels.ravel() + 1)
        return tuple(int(i) for i in np.flatnonzero(counts[1:]))

    def to_json(self, label_map_path: str | Path) -> SemanticJSON:
        """What ``ovp predict --json`` prints, given where `save_png` wrote the map."""
        return {"classes": list(self.classes), "label_map": str(label_map_path)}

    def save_png(self, path: str | Path) -> None:
        """Write the labels as a grey PNG, 8 bits deep up to 255 classes and 16 above.

        Undecided pixels become the largest value, 255 or 65535.

        Raises:
            InvalidRegions: a label has no class.
            Unsupported: more than 65535 classes.
        """
        from ovperception.images import encode_png, write_file

        count = len(self.classes)
        if count > 65535:
            raise Unsupported("A PNG cannot tell so many classes apart", expected="at most 65535", got=count)
        _ = self.present  # refuses what would wrap around to another class
        # -1 wraps around to the largest value of either type.
        write_file(path, encode_png(self.labels.astype(np.uint8 if count <= 255 else np.uint16)))

    def draw(self, image: ImageSource) -> NDArray[np.uint8]:
        """A copy of the image tinted and labelled by class, (H, W, 3) uint8 RGB.

        Raises:
            InvalidImage: not an image, or not of `size`.
        """
        from ovperception.drawing import draw_semantic

        return draw_semantic(_canvas(image, self.size), self)


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
        shape = _plane_shape(self.ids, "ids")
        object.__setattr__(self, "ids", _array(self.ids, np.int32, shape, "ids"))
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
        categories = _categories(category_ids, len(self.classes))
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
                "score": _short(segment.score),
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

        return draw_panoptic(_canvas(image, self.size), self)


def _array(values: Any, dtype: type[np.generic], shape: tuple[int, ...], name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.size == 0 and 0 in shape:  # an empty list knows neither type nor shape
        return np.zeros(shape, dtype=dtype)
    if array.shape != shape or not np.can_cast(array.dtype, dtype, casting="same_kind"):
        raise InvalidRegions(
            f"{name} have a wrong shape or type",
            field=name,
            expected=f"{shape} {np.dtype(dtype)}",
            got=f"{array.shape} {array.dtype}",
        )
    return array.astype(dtype, copy=False)


def _plane_shape(plane: NDArray[Any], name: str) -> tuple[int, int]:
    shape = np.shape(plane)
    if len(shape) != 2 or 0 in shape:
        raise InvalidRegions(f"{name} must be a map", field=name, expected="(H, W)", got=shape)
    return shape[0], shape[1]


def _selector(keep: Any, count: int) -> NDArray[Any]:
    selector = np.asarray(keep)
    if selector.size == 0 and selector.dtype != np.bool_:
        return np.zeros(0, dtype=np.int64)
    fits = selector.ndim == 1 and (
        len(selector) == count
        if selector.dtype == np.bool_
        else selector.dtype.kind in "iu" and -count <= selector.min() <= selector.max() < count
    )
    if not fits:
        raise InvalidParameter(
            "The selection does not fit the detections",
            expected=f"({count},) bool, or indices below {count}",
            got=keep,
        )
    return selector


def _categories(category_ids: Sequence[int] | None, count: int) -> list[int]:
    if category_ids is None:
        return list(range(count))
    if isinstance(category_ids, Mapping) or len(category_ids) != count:
        raise InvalidParameter(
            "There must be one category id for each class", expected=f"{count} numbers", got=category_ids
        )
    return [int(category) for category in category_ids]


def _segment_box(mask: NDArray[np.bool_]) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return [0, 0, 0, 0]
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def _short(value: float | np.floating) -> float:
    """The shortest decimal that is the same float32."""
    return float(str(np.float32(value)))


def _canvas(image: ImageSource, size: tuple[int, int]) -> NDArray[np.uint8]:
    from ovperception.images import load_image

    canvas = load_image(image)
    if canvas.shape[:2] != size:
        raise InvalidImage(
            "The image is not the one that was asked about",
            expected=f"(height, width) = {size}",
            got=canvas.shape[:2],
        )
    return canvas
