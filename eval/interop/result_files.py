"""Answers to and from the result files of pycocotools, lvis-api and panopticapi, and `supervision`.

`Detections.to_supervision` and `Detections.to_coco` are the other direction of one image.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.metrics.columns import records
from eval.metrics.ground_truth import GroundTruth, read_ground_truth
from eval.metrics.label_images import read_panoptic_map
from eval.metrics.panoptic_files import read_panoptic_files
from eval.metrics.results import Results, read_results
from ovperception.errors import InvalidDataset, InvalidParameter
from ovperception.images import write_file
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, Segment

if TYPE_CHECKING:
    import supervision

__all__ = ["from_supervision", "read_detections", "read_panoptic", "write_detections", "write_panoptic"]


def write_detections(
    path: Path,
    answers: Iterable[tuple[int, Detections]],
    category_ids: Sequence[int],
    *,
    masks_only: bool = False,
    per_image: int | None = None,
) -> int:
    """Write a result file that ``COCO.loadRes`` and ``LVISResults`` read.

    Args:
        path: of the JSON.
        answers: image id and what was found there.
        category_ids: (K,) the annotation file's id of each class.
        masks_only: leave boxes out of records with masks: pycocotools otherwise takes areas from the boxes.
        per_image: keep only so many of an image, the best first; 300 for LVIS.

    Returns:
        How many detections were written.

    Raises:
        InvalidParameter: there are not as many ids as classes.
    """
    rows: list[dict[str, Any]] = []
    for image_id, found in answers:
        kept = found if per_image is None else found.filter(slice(per_image))
        for row in kept.to_coco(image_id, category_ids):
            record = dict(row)
            if masks_only and "segmentation" in record:
                del record["bbox"]
            rows.append(record)
    write_file(path, json.dumps(rows).encode())
    return len(rows)


def read_detections(results: Path, annotations: Path, *, masks: bool = False) -> dict[int, Detections]:
    """The detections of a result file, image by image; images without any are there too.

    Args:
        results: JSON list as pycocotools and lvis-api read it.
        annotations: the file it answers, of COCO or LVIS: sizes and class names come from it.
        masks: read the masks as well; boxes of records without "bbox" are those around their masks.

    Raises:
        MissingFile: there is no such file.
        InvalidDataset: one of the files is not what it should be, or an image has no size.
    """
    truth = read_ground_truth(annotations, masks=False)
    found = read_results(results, truth, masks=masks)
    rows: dict[int, list[int]] = defaultdict(list)
    for i, image_id in enumerate(found.image_ids.tolist()):
        rows[image_id].append(i)
    return {image["id"]: _of_image(image, rows[image["id"]], found, truth) for image in truth.images}


def _of_image(
    image: Mapping[str, Any], rows: Sequence[int], found: Results, truth: GroundTruth
) -> Detections:
    size = int(image.get("height") or 0), int(image.get("width") or 0)
    if min(size) < 1:
        raise InvalidDataset(
            "An image has no size", field="images", expected='"height" and "width"', got=dict(image)
        )
    place = {category.id: k for k, category in enumerate(truth.categories)}
    # The best first, ties in the order of the file.
    order = sorted(rows, key=lambda i: -found.scores[i])
    masks = None if found.masks is None else tuple(RLE.from_coco(found.masks[i]) for i in order)
    if masks is not None:
        boxes = np.array([mask.box for mask in masks], np.float32).reshape(-1, 4)
    else:
        assert found.boxes is not None
        boxes = found.boxes[order].astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
    return Detections(
        size=size,
        classes=tuple(category.name for category in truth.categories),
        boxes=boxes,
        scores=found.scores[order].astype(np.float32),
        class_ids=np.array([place[found.category_ids[i]] for i in order], np.int64),
        masks=masks,
    )


def write_panoptic(
    path: Path,
    answers: Iterable[tuple[int, str, PanopticMap]],
    category_ids: Sequence[int],
    *,
    folder: Path | None = None,
) -> int:
    """Write a JSON and a folder of PNGs that panopticapi reads.

    Args:
        path: of the JSON.
        answers: image id, name of the picture, and its segments.
        category_ids: (K,) the annotation file's id of each class.
        folder: of the PNGs; by default beside the JSON, by its name without ".json".

    Returns:
        How many images were written.

    Raises:
        InvalidParameter: two pictures would have one PNG.
    """
    folder = path.with_suffix("") if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    names: set[str] = set()
    for image_id, picture, found in answers:
        name = f"{Path(picture).stem}.png"
        if name in names:
            raise InvalidParameter(
                "Two pictures would have one PNG", field="answers", expected="different names", got=name
            )
        names.add(name)
        found.save_png(folder / name)
        entries.append(found.to_coco(image_id, name, category_ids))
    write_file(path, json.dumps({"annotations": entries}).encode())
    return len(entries)


def read_panoptic(
    results: Path, annotations: Path, *, folder: Path | None = None
) -> Iterator[tuple[int, PanopticMap]]:
    """The segments of a panoptic result, image by image.

    Args:
        results: JSON as panopticapi reads it.
        annotations: the file it answers; its PNGs are not looked at.
        folder: of the result's PNGs; by default beside the JSON, by its name without ".json".

    Raises:
        MissingFile: a file does not exist.
        InvalidDataset: a file is not what it should be.
    """
    files = read_panoptic_files(annotations, results, results_folder=folder)
    place = {category.id: k for k, category in enumerate(files.categories)}
    names = tuple(category.name for category in files.categories)
    for image_id in files.image_ids:
        entry, path = files.results[image_id]
        ids = read_panoptic_map(path)
        numbers, counts = np.unique(ids, return_counts=True)
        areas = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        segments = []
        for row in records(entry.get("segments_info"), f"{path.name}.segments_info"):
            k = place.get(row.get("category_id", -1))
            if k is None or row.get("id") not in areas:
                raise InvalidDataset(
                    f"{path.name} does not hold a segment that is listed, or it has no known class",
                    field=f"{path.name}.segments_info",
                    got=dict(row),
                )
            segments.append(
                Segment(
                    id=row["id"],
                    class_id=k,
                    score=float(row.get("score", 1.0)),
                    area=areas[row["id"]],
                    is_thing=files.categories[k].is_thing,
                )
            )
        yield image_id, PanopticMap(classes=names, ids=ids.astype(np.int32), segments=tuple(segments))


def from_supervision(
    found: supervision.Detections, size: tuple[int, int], classes: Sequence[str]
) -> Detections:
    """Detections of `supervision`, the best score first.

    Args:
        found: with ``class_id``; without ``confidence`` every score is 1.
        size: (height, width) of the picture.
        classes: (K,) names that ``class_id`` indexes.

    Raises:
        InvalidParameter: it has no classes.
        InvalidRegions: a class has no name, or a mask is of another size.
    """
    if found.class_id is None:
        raise InvalidParameter("These detections have no classes", field="class_id")
    count = len(found)
    scores = np.ones(count) if found.confidence is None else np.asarray(found.confidence)
    order = np.argsort(-scores, kind="stable")
    masks = None
    if found.mask is not None:
        masks = tuple(RLE.encode(np.asarray(found.mask[i]).astype(bool)) for i in order)
    return Detections(
        size=size,
        classes=tuple(classes),
        boxes=np.asarray(found.xyxy, np.float32)[order].reshape(-1, 4),
        scores=scores[order].astype(np.float32),
        class_ids=np.asarray(found.class_id)[order].astype(np.int64),
        masks=masks,
    )
