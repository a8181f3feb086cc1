"""Boxes with classes and scores, and masks where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NotRequired, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidParameter, InvalidRegions, MissingDependency
from ovperception.rle import RLE, CocoRLE
from ovperception.structures.arrays import as_array, canvas, category_numbers, shortest

if TYPE_CHECKING:
    import supervision

    from ovperception.images import ImageSource

__all__ = ["CocoResult", "DetectionJSON", "Detections", "DetectionsJSON"]

# "class" is a keyword, hence the other spelling of TypedDict.
DetectionJSON = TypedDict(
    "DetectionJSON", {"class": str, "score": float, "box": list[float], "mask": NotRequired[CocoRLE]}
)


class DetectionsJSON(TypedDict):
    """`Detections` as ``ovp predict --json`` prints them; boxes are xyxy pixels."""

    detections: list[DetectionJSON]


class CocoResult(TypedDict):
    """One entry of a COCO result file; the box is x, y, width, height."""

    image_id: int
    category_id: int
    score: float
    bbox: list[float]
    segmentation: NotRequired[CocoRLE]


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
        if np.ndim(self.scores) != 1:
            raise InvalidRegions("scores must be a list", field="scores", expected="(N,)", got=self.scores)
        count = len(self.scores)
        for name, dtype, shape in (
            ("boxes", np.float32, (count, 4)),
            ("scores", np.float32, (count,)),
            ("class_ids", np.int64, (count,)),
        ):
            object.__setattr__(self, name, as_array(getattr(self, name), dtype, shape, name))
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
        categories = category_numbers(category_ids, len(self.classes))
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
                "score": shortest(self.scores[i]),
                "box": [shortest(side) for side in self.boxes[i]],
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

        return draw_detections(canvas(image, self.size), self)


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
