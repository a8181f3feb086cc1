"""PQ of a panoptic result, JSON and folder of PNGs, against COCO panoptic annotations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.metrics.columns import integer_column, records
from eval.metrics.json_files import naming, read_json
from eval.metrics.label_images import read_panoptic_map
from eval.metrics.panoptic_quality import PanopticQuality, PanopticSegment
from eval.metrics.scores import Category, PanopticScores
from ovperception.errors import InvalidDataset, InvalidRegions

__all__ = ["PanopticFiles", "read_panoptic_files", "score_panoptic_files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticFiles:
    """Pairs of maps that are ready to be counted; a process may be given a part of `image_ids`.

    Attributes:
        categories: of the annotations.
        image_ids: in ascending order.
        truth: image id -> its entry and its PNG.
        results: the same of the answer.
        warnings: what was odd.
    """

    categories: tuple[Category, ...]
    image_ids: tuple[int, ...]
    truth: Mapping[int, tuple[Mapping[str, Any], Path]]
    results: Mapping[int, tuple[Mapping[str, Any], Path]]
    warnings: Mapping[str, int]

    def count(self, quality: PanopticQuality, image_ids: Sequence[int] | None = None) -> None:
        """Counts images; None for all.

        Raises:
            MissingFile: a PNG does not exist.
            InvalidDataset: a PNG cannot be read, is of another size than its truth, or does not hold the
                segments that are listed.
        """
        for image_id in self.image_ids if image_ids is None else image_ids:
            expected, true_path = self.truth[image_id]
            found, path = self.results[image_id]
            try:
                quality.add(
                    read_panoptic_map(true_path),
                    _segments(expected, true_path.name),
                    read_panoptic_map(path),
                    _segments(found, path.name),
                )
            except InvalidRegions as error:
                raise InvalidDataset(
                    f"Image {image_id}, {path.name}: {error.what[0].lower()}{error.what[1:]}",
                    field=error.field,
                    expected=error.expected,
                    got=error.got or None,
                ) from error


def score_panoptic_files(
    truth: str | Path,
    results: str | Path,
    *,
    truth_folder: str | Path | None = None,
    results_folder: str | Path | None = None,
    image_ids: Collection[int] | None = None,
) -> PanopticScores:
    """Judge a panoptic result.

    Args:
        truth: COCO panoptic annotations.
        results: the result's JSON.
        truth_folder: of the annotations' PNGs; the JSON's name without suffix if None, as panopticapi has it.
        results_folder: the same of the result's.
        image_ids: the images to judge; None for all.

    Raises:
        MissingFile: a file does not exist.
        InvalidDataset: a file is not what it should be, or an annotated image has no answer.
    """
    files = read_panoptic_files(
        truth, results, truth_folder=truth_folder, results_folder=results_folder, image_ids=image_ids
    )
    quality = PanopticQuality(files.categories)
    files.count(quality)
    return replace(quality.scores(), warnings=files.warnings)


def read_panoptic_files(
    truth: str | Path,
    results: str | Path,
    *,
    truth_folder: str | Path | None = None,
    results_folder: str | Path | None = None,
    image_ids: Collection[int] | None = None,
) -> PanopticFiles:
    """Read both JSONs and pair their images; see `score_panoptic_files`."""
    with naming(truth):
        content = _content(truth)
        if "categories" not in content:
            raise InvalidDataset(
                "The annotations list no categories", field="categories", got=", ".join(content)
            )
        categories = _categories(content["categories"])
        expected = _entries(content, Path(truth_folder or Path(truth).with_suffix("")), "annotations")
    with naming(results):
        found = _entries(_content(results), Path(results_folder or Path(results).with_suffix("")), "results")
    wanted = sorted(expected if image_ids is None else {int(i) for i in image_ids})
    for name, entries in (("annotations", expected), ("results", found)):
        missing = [i for i in wanted if i not in entries]
        if missing:
            raise InvalidDataset(
                f"{len(missing)} of {len(wanted)} images are not in the {name}",
                field=f"{name}.image_id",
                expected="every image once",
                got=missing[:9],
            )
    beside = len(found.keys() - set(wanted))
    return PanopticFiles(
        categories=categories,
        image_ids=tuple(wanted),
        truth=expected,
        results=found,
        warnings={"result_outside_selection": beside} if beside else {},
    )


def _content(path: str | Path) -> Mapping[str, Any]:
    content = read_json(path)
    if not isinstance(content, Mapping) or "annotations" not in content:
        raise InvalidDataset(
            f"{Path(path).name} is no panoptic file",
            expected='an object with "annotations"',
            got=", ".join(content) if isinstance(content, Mapping) else type(content).__name__,
        )
    return content


def _categories(value: object) -> tuple[Category, ...]:
    rows = records(value, "categories")
    ids = integer_column(rows, "id", "categories").tolist()
    if len(set(ids)) != len(ids):
        raise InvalidDataset("A category id is given twice", field="categories.id")
    if not all("isthing" in row for row in rows):
        raise InvalidDataset(
            "A category does not say whether it is a thing", field="categories.isthing", expected="0 or 1"
        )
    return tuple(
        Category(id=i, name=str(row.get("name", i)), is_thing=bool(row["isthing"]))
        for i, row in zip(ids, rows, strict=True)
    )


def _entries(
    content: Mapping[str, Any], folder: Path, what: str
) -> dict[int, tuple[Mapping[str, Any], Path]]:
    rows = records(content["annotations"], what)
    ids = integer_column(rows, "image_id", what).tolist()
    entries: dict[int, tuple[Mapping[str, Any], Path]] = {}
    for index, (image_id, row) in enumerate(zip(ids, rows, strict=True)):
        if image_id in entries:
            raise InvalidDataset("An image is given twice", field=f"{what}[{index}].image_id", got=image_id)
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise InvalidDataset(
                "An image has no PNG",
                field=f"{what}[{index}].file_name",
                expected='a COCO panoptic file: "file_name" and "segments_info" of each image',
                got=name,
            )
        entries[image_id] = (row, folder / name)
    return entries


def _segments(entry: Mapping[str, Any], name: str) -> list[PanopticSegment]:
    rows = records(entry.get("segments_info"), f"{name}.segments_info")
    ids = integer_column(rows, "id", f"{name}.segments_info").tolist()
    classes = integer_column(rows, "category_id", f"{name}.segments_info").tolist()
    return [
        PanopticSegment(i, category, bool(row.get("iscrowd", 0)))
        for i, category, row in zip(ids, classes, rows, strict=True)
    ]
