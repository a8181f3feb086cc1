"""Annotation files of COCO and LVIS, checked and turned into columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics.columns import box_column, integer_column, number_column, records
from eval.metrics.json_files import naming, read_json
from eval.metrics.run_lengths import check_masks
from eval.metrics.scores import Category
from ovperception.errors import InvalidDataset

__all__ = ["GroundTruth", "read_ground_truth"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroundTruth:
    """What is to be found: N objects.

    Attributes:
        images: as the file lists them, those that are judged, by ascending id.
        known_images: ids of all images of the file.
        categories: those that are judged, by ascending id.
        known_categories: ids of all categories of the file.
        image_ids: (N,) of each object.
        category_ids: (N,).
        boxes: (N, 4) x, y, width, height; None if masks only are judged and the file has none.
        areas: (N,) as the file says, pixels.
        crowd: (N,) whether it stands for many.
        segmentations: (N,) polygons or RLE; None if boxes are judged.
        warnings: what was odd.
    """

    images: tuple[Mapping[str, Any], ...]
    known_images: frozenset[int]
    categories: tuple[Category, ...]
    known_categories: frozenset[int]
    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64] | None
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    segmentations: list[Any] | None
    warnings: Counter[str]

    def sizes(self, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N, 2) height and width of the images with these ids; -1 where the file does not tell."""
        ids = np.array([image["id"] for image in self.images], np.int64)
        known = [(image.get("height") or -1, image.get("width") or -1) for image in self.images]
        sizes = np.array(known, np.int64).reshape(-1, 2)
        return sizes[np.searchsorted(ids, image_ids)]


def read_ground_truth(
    source: str | Path | Mapping[str, Any],
    *,
    masks: bool,
    federated: bool = False,
    image_ids: Collection[int] | None = None,
    category_ids: Collection[int] | None = None,
) -> GroundTruth:
    """Read an annotation file.

    Args:
        source: a path, gzipped or not, or its content.
        masks: masks are judged, otherwise boxes.
        federated: the file is LVIS's: no crowds, and frequencies.
        image_ids: the images to judge; None for all.
        category_ids: the classes to judge; None for all.

    Raises:
        MissingFile: there is no such file.
        InvalidDataset: it is no annotation file, an id is given twice, or an object is misshaped.
    """
    content = read_json(source) if isinstance(source, str | Path) else source
    with naming(source):
        return _checked(content, masks, federated, image_ids, category_ids)


def _checked(
    content: object,
    masks: bool,
    federated: bool,
    image_ids: Collection[int] | None,
    category_ids: Collection[int] | None,
) -> GroundTruth:
    if not isinstance(content, Mapping):
        raise InvalidDataset(
            "This is not an annotation file",
            expected='an object with "images", "annotations" and "categories"',
            got=type(content).__name__,
        )
    for name in ("images", "annotations", "categories"):
        if name not in content:
            raise InvalidDataset(f'The annotation file has no "{name}"', field=name, got=", ".join(content))
    images = _listed(content["images"], "images", image_ids)
    listed = _listed(content["categories"], "categories", category_ids)
    warnings: Counter[str] = Counter()
    known_images = frozenset(integer_column(content["images"], "id", "images").tolist())
    known_categories = frozenset(integer_column(content["categories"], "id", "categories").tolist())
    rows = _kept(content["annotations"], images, listed, known_images, known_categories, warnings)
    boxes, areas = _extent(rows, masks, warnings)
    if federated and not (areas > 0).all():  # lvis-api asks for areas above 0, of objects and of answers
        warnings["annotation_of_no_area"] += int((areas <= 0).sum())
        there = np.flatnonzero(areas > 0)
        rows, areas = [rows[i] for i in there.tolist()], areas[there]
        boxes = None if boxes is None else boxes[there]
    crowd = np.array([bool(row.get("iscrowd", 0)) for row in rows], bool)
    if federated and crowd.any():
        warnings["ignored_crowd"] += int(crowd.sum())
        crowd[:] = False
    truth = GroundTruth(
        images=images,
        known_images=known_images,
        categories=tuple(_category(row, federated) for row in listed),
        known_categories=known_categories,
        image_ids=integer_column(rows, "image_id", "annotations"),
        category_ids=integer_column(rows, "category_id", "annotations"),
        boxes=boxes,
        areas=areas,
        crowd=crowd,
        segmentations=_segmentations(rows) if masks else None,
        warnings=warnings,
    )
    _check_segmentations(truth)
    return truth


def _listed(value: object, what: str, chosen: Collection[int] | None) -> tuple[Mapping[str, Any], ...]:
    rows = records(value, what)
    ids = integer_column(rows, "id", what)
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise InvalidDataset(
            f"An id of the {what} is given twice",
            field=f"{what}.id",
            expected="every id once",
            got=values[counts > 1][:9].tolist(),
        )
    by_id = dict(zip(ids.tolist(), rows, strict=True))
    wanted = values.tolist() if chosen is None else sorted({int(i) for i in chosen})
    absent = [i for i in wanted if i not in by_id]
    if absent:
        raise InvalidDataset(
            f"Some {what} that were asked for are not in the annotation file", field=what, got=absent[:9]
        )
    return tuple(by_id[i] for i in wanted)


def _kept(
    value: object,
    images: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
    known_images: frozenset[int],
    known_categories: frozenset[int],
    warnings: Counter[str],
) -> Sequence[Mapping[str, Any]]:
    """The annotations that are judged; what is left out, and ids that pycocotools loses, are counted."""
    rows = records(value, "annotations")
    ids = integer_column(rows, "id", "annotations")
    warnings["annotation_id_zero"] += int((ids == 0).sum())
    warnings["duplicate_annotation_id"] += len(ids) - len(np.unique(ids))
    of_image = integer_column(rows, "image_id", "annotations")
    of_category = integer_column(rows, "category_id", "annotations")
    strange = ~np.isin(of_image, list(known_images))
    unknown = ~np.isin(of_category, list(known_categories)) & ~strange
    inside = np.isin(of_image, [image["id"] for image in images])
    inside &= np.isin(of_category, [category["id"] for category in categories])
    warnings["annotation_of_unknown_image"] += int(strange.sum())
    warnings["annotation_of_unknown_category"] += int(unknown.sum())
    warnings["annotation_outside_selection"] += int((~inside & ~strange & ~unknown).sum())
    return rows if inside.all() else [rows[i] for i in np.flatnonzero(inside).tolist()]


def _extent(
    rows: Sequence[Mapping[str, Any]], masks: bool, warnings: Counter[str]
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Boxes and areas."""
    has_boxes = all("bbox" in row for row in rows)
    boxes = box_column(rows, "annotations") if has_boxes or not masks else None
    bare = sum("area" not in row for row in rows)
    if bare and boxes is not None:
        warnings["annotation_without_area"] += bare
        given = [row.get("area", w * h) for row, (_, _, w, h) in zip(rows, boxes.tolist(), strict=True)]
        return boxes, number_column([{"area": area} for area in given], "area", "annotations")
    return boxes, number_column(rows, "area", "annotations")


def _category(row: Mapping[str, Any], federated: bool) -> Category:
    group = row.get("frequency", "")
    if federated and group not in ("r", "c", "f"):
        raise InvalidDataset(
            "A category has no frequency",
            field=f"categories.{row['id']}.frequency",
            expected="r, c or f",
            got=group or "none",
            mend="LVIS files have it; others are judged by COCO's rules.",
        )
    return Category(
        id=int(row["id"]),
        name=str(row.get("name", row["id"])),
        is_thing=bool(row.get("isthing", 1)),
        group=str(group),
    )


def _segmentations(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    for index, row in enumerate(rows):
        if not row.get("segmentation"):
            raise InvalidDataset(
                "An object has no mask", field=f"annotations[{index}].segmentation", got=dict(row)
            )
    return [row["segmentation"] for row in rows]


def _check_segmentations(truth: GroundTruth) -> None:
    if truth.segmentations is None or not truth.segmentations:
        return
    sizes = truth.sizes(truth.image_ids)
    is_rle = np.array([isinstance(s, Mapping) for s in truth.segmentations], bool)
    unsized = sum(not (i.get("height") and i.get("width")) for i in truth.images)
    if unsized and not is_rle.all():
        raise InvalidDataset(
            "Polygons need the size of their image",
            field="images.height, images.width",
            expected="both, for every image",
            got=f"{unsized} images without",
        )
    if unsized:
        truth.warnings["truth_size_unknown"] += unsized
    chosen = np.flatnonzero(is_rle)
    checked, _ = check_masks([truth.segmentations[i] for i in chosen], sizes[chosen], "annotations")
    for i, mask in zip(chosen, checked, strict=True):
        truth.segmentations[i] = mask
