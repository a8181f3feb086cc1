"""The truth of scenes in the words of COCO, LVIS and ADE20K, as plain JSON-ready records."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovperception.datasets.scenes.categories import SceneCategory, load_categories
from ovperception.datasets.scenes.sample import SceneSample
from ovperception.rle import RLE, CocoRLE

# A record of a JSON file: its keys are the format's, not ours.
Record = dict[str, Any]

_NEGATIVES_PER_IMAGE = 40
_GOLDEN_RATIO = 0.61803398875
_INFO: Record = {
    "description": "ovperception scenes: procedural pictures with exact truth",
    "version": "1.0",
    "contributor": "ovperception",
}
_LICENSES: list[Record] = [
    {"id": 1, "name": "SIL Open Font License 1.1 (sprites)", "url": "https://openfontlicense.org"}
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRecord:
    """A `SegmentTruth` with its mask as COCO RLE; the box is xywh in pixels."""

    id: int
    category_id: int
    is_thing: bool
    colour: str | None
    box: tuple[float, float, float, float]
    area: int
    segmentation: CocoRLE | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """What the annotation files need to know of one scene.

    Attributes:
        id: image id, 1 and up.
        file_name: of the picture.
        size: (height, width).
        segments: things, then stuff; things carry their mask.
        captions: as in `SceneSample`.
    """

    id: int
    file_name: str
    size: tuple[int, int]
    segments: tuple[SegmentRecord, ...]
    captions: tuple[str, ...]

    @property
    def stem(self) -> str:
        """The file name without its ending."""
        return self.file_name.rpartition(".")[0]


def image_record(sample: SceneSample, image_id: int, file_name: str) -> ImageRecord:
    """Sums up a scene."""
    segments = []
    for segment in sample.segments:
        x1, y1, x2, y2 = segment.box
        segments.append(
            SegmentRecord(
                id=segment.id,
                category_id=segment.category_id,
                is_thing=segment.is_thing,
                colour=segment.colour,
                box=(x1, y1, x2 - x1, y2 - y1),
                area=segment.area,
                segmentation=RLE.encode(sample.mask(segment.id)).to_coco() if segment.is_thing else None,
            )
        )
    height, width = sample.panoptic.shape
    return ImageRecord(
        id=image_id,
        file_name=file_name,
        size=(height, width),
        segments=tuple(segments),
        captions=sample.captions,
    )


def _images(records: Iterable[ImageRecord]) -> list[Record]:
    return [
        {
            "id": record.id,
            "file_name": record.file_name,
            "height": record.size[0],
            "width": record.size[1],
            "license": 1,
        }
        for record in records
    ]


def _instances(records: Iterable[ImageRecord]) -> list[Record]:
    """Annotations of all objects, numbered from 1: the evaluators of COCO take id 0 for "no match"."""
    annotations: list[Record] = []
    for record in records:
        for segment in record.segments:
            if segment.is_thing:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": record.id,
                        "category_id": segment.category_id,
                        "bbox": list(segment.box),
                        "area": segment.area,
                        "segmentation": segment.segmentation,
                    }
                )
    return annotations


def _things() -> list[SceneCategory]:
    return [category for category in load_categories() if category.is_thing]


def coco_instances(records: Sequence[ImageRecord]) -> Record:
    """Gives the content of a COCO instances file; ``colour`` of an annotation is an extension."""
    colours = [s.colour for record in records for s in record.segments if s.is_thing]
    annotations = [
        annotation | {"iscrowd": 0, "colour": colour}
        for annotation, colour in zip(_instances(records), colours, strict=True)
    ]
    return {
        "info": _INFO,
        "licenses": _LICENSES,
        "images": _images(records),
        "annotations": annotations,
        "categories": [{"id": c.id, "name": c.name, "supercategory": c.supercategory} for c in _things()],
    }


def coco_panoptic(records: Sequence[ImageRecord]) -> Record:
    """Gives the content of a COCO panoptic file."""
    annotations = [
        {
            "image_id": record.id,
            "file_name": f"{record.stem}.png",
            "segments_info": [
                {
                    "id": segment.id,
                    "category_id": segment.category_id,
                    "area": segment.area,
                    "bbox": [int(value) for value in segment.box],
                    "iscrowd": 0,
                }
                for segment in record.segments
            ],
        }
        for record in records
    ]
    categories = [
        {
            "id": category.id,
            "name": category.name,
            "supercategory": category.supercategory,
            "isthing": int(category.is_thing),
            "color": _display_colour(category.id),
        }
        for category in load_categories()
    ]
    return {
        "info": _INFO,
        "licenses": _LICENSES,
        "images": _images(records),
        "annotations": annotations,
        "categories": categories,
    }


def _display_colour(category_id: int) -> list[int]:
    hue = category_id * _GOLDEN_RATIO % 1
    rgb = colorsys.hsv_to_rgb(hue, 0.5 + 0.5 * (category_id % 3) / 2, 0.95 - 0.25 * (category_id % 2))
    return [round(channel * 255) for channel in rgb]


def coco_captions(records: Sequence[ImageRecord]) -> Record:
    """Gives the content of a COCO captions file: of each image the caption of the whole scene."""
    annotations = [
        {"id": number, "image_id": record.id, "caption": record.captions[0]}
        for number, record in enumerate(records, start=1)
    ]
    return {"info": _INFO, "licenses": _LICENSES, "images": _images(records), "annotations": annotations}


def lvis(records: Sequence[ImageRecord], seed: int) -> Record:
    """Gives the content of an LVIS file.

    Scenes are labelled exhaustively, so ``not_exhaustive_category_ids`` is empty; of the absent classes a
    seeded sample is named as negative, as LVIS's federated protocol asks. ``frequency`` is the world's, not
    counted from these images.

    Args:
        records: the scenes.
        seed: of the sample of negatives.
    """
    things = _things()
    images = _images(records)
    image_count: Counter[int] = Counter()
    instance_count: Counter[int] = Counter()
    for image, record in zip(images, records, strict=True):
        present = [segment.category_id for segment in record.segments if segment.is_thing]
        instance_count.update(present)
        image_count.update(set(present))
        image["neg_category_ids"] = lvis_negatives(record.id, present, seed)
        image["not_exhaustive_category_ids"] = []
    categories = [
        {
            "id": category.id,
            "name": category.name,
            "synonyms": list(category.names),
            "frequency": category.frequency,
            "image_count": image_count[category.id],
            "instance_count": instance_count[category.id],
        }
        for category in things
    ]
    return {
        "info": _INFO,
        "licenses": _LICENSES,
        "images": images,
        "annotations": _instances(records),
        "categories": categories,
    }


def lvis_negatives(image_id: int, present: Sequence[int], seed: int) -> list[int]:
    """The classes of things that an image is judged to lack, sorted: a seeded sample of those it lacks.

    Args:
        image_id: of the image.
        present: ids of the classes of its things.
        seed: of the file.
    """
    absent = np.setdiff1d([category.id for category in _things()], present)
    rng = np.random.Generator(np.random.PCG64([seed, image_id]))
    chosen = rng.choice(absent, min(_NEGATIVES_PER_IMAGE, len(absent)), replace=False)
    return sorted(int(i) for i in chosen)


def ade_object_info(records: Sequence[ImageRecord], *, training: bool) -> str:
    """Gives ADE20K's ``objectInfo`` table; a class's Idx is its value in the label PNGs, 0 is void."""
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    total = 0
    for record in records:
        total += record.size[0] * record.size[1]
        images.update({segment.category_id for segment in record.segments})
        for segment in record.segments:
            pixels[segment.category_id] += segment.area
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    for category in load_categories():
        ratio = pixels[category.id] / max(total, 1)
        train, val = (images[category.id], 0) if training else (0, images[category.id])
        stuff = int(not category.is_thing)
        lines.append(f"{category.id}\t{ratio:.6f}\t{train}\t{val}\t{stuff}\t{', '.join(category.names)}")
    return "\n".join(lines) + "\n"
