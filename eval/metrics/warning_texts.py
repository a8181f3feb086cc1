"""What can be odd in an input without making its number wrong, each counted under a short name."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["WARNINGS", "warning_lines"]

WARNINGS: Mapping[str, str] = {
    "annotation_id_zero": "annotation with id 0: pycocotools takes 0 for 'no match' and counts its true "
    "positive as false; annotations were numbered anew, so the number here is right and theirs is not",
    "duplicate_annotation_id": "annotation id given to several objects: pycocotools keeps only the last; "
    "annotations were numbered anew and all count",
    "annotation_of_no_area": "object of area 0 in a federated file: left out, as lvis-api does",
    "annotation_without_area": "annotation without an area: that of its box was taken",
    "annotation_of_unknown_category": "annotation of a category that the file does not list: left out",
    "annotation_of_unknown_image": "annotation of an image that the file does not list: left out",
    "annotation_outside_selection": "annotation of a class or image that was not asked for: left out",
    "capped_result": "detection beyond the limit of the protocol: left out",
    "degenerate_box": "detected box without width or height: it can match nothing",
    "empty_mask": "detected mask without pixels: it can match nothing",
    "image_without_results": "image without any result: all its objects count as missed",
    "foreign_category": "category of the annotation file that is not one of the protocol's by id and name: "
    "the file's own were judged, so no published number stands beside this one",
    "ignored_crowd": "crowd in a federated file: LVIS has none, it counts as an object",
    "no_results": "no results at all: every number is that of an empty answer",
    "result_of_unknown_category": "result of a category that the annotations do not list: left out",
    "result_outside_selection": "result of a class or image that was not asked for: left out",
    "score_out_of_range": "score outside 0 to 1: only its order counts",
    "truth_size_unknown": "image without a size in the annotations: masks were not checked against it",
    "undecided_pixel": "pixel the prediction leaves undecided: it counts as missed",
    "unlisted_file": "file in the folder of results that no annotation asks for: not read",
    "void_not_told": "image whose void regions are not told: what was found there counts as wrong",
}
"""Name -> meaning, in the singular; numbers made despite one of these are still right."""


def warning_lines(warnings: Mapping[str, int]) -> list[str]:
    """One readable line for each, the most frequent first."""
    ordered = sorted(warnings.items(), key=lambda item: (-item[1], item[0]))
    return [f"{count} x {WARNINGS.get(name, name)}" for name, count in ordered if count]
