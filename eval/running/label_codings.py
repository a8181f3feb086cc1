"""How the label files of each data set are written, for scoring a folder of them without its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from eval.metrics import LabelCoding
from ovperception.datasets.categories import builtin_classes
from ovperception.datasets.scene_sets import scenes_classes
from ovperception.datasets.vocabularies import load_table, load_vocabulary_file
from ovperception.errors import Unsupported

__all__ = ["LabelFiles", "label_files"]

_VOID = frozenset({255, 65535})


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFiles:
    """The files of a data set.

    Attributes:
        truth: how they are written; numbers of no class are not judged.
        results: how answers to them are: the same numbers, 255 (65535 in deep files) where undecided.
        suffix: what follows the name of an image in the folder of the truth.
    """

    truth: LabelCoding
    results: LabelCoding
    suffix: str = ".png"


def label_files(data: str) -> LabelFiles:
    """Of a data set by its name.

    Raises:
        Unsupported: it has no label files of its own.
    """
    coding = _codings().get(data)
    if coding is None:
        raise Unsupported(
            f"{data} has no folder of label files that could be scored",
            field="protocol",
            expected=f"a protocol of {', '.join(sorted(_codings()))}",
            mend="Evaluate the model with `ovp eval --model`",
        )
    lookup, special, suffix = coding
    truth = LabelCoding(lookup=lookup, special=special - frozenset(lookup))
    results = replace(truth, special=(special | _VOID) - frozenset(lookup))
    return LabelFiles(truth=truth, results=results, suffix=suffix)


def _codings() -> Mapping[str, tuple[Mapping[int, int], frozenset[int], str]]:
    voc, border = range(1, 21), frozenset({255})
    stuff = [number - 1 for number in builtin_classes("coco_stuff_171").category_ids]
    things = {e.id - 1: i for i, e in enumerate(load_vocabulary_file("coco_object_81").classes) if i}
    background = dict.fromkeys((*range(91, 182), 255), 0)
    street = builtin_classes("cityscapes_19").category_ids
    other = frozenset(row["id"] % 256 for row in load_table("cityscapes_labels_all")) | border
    return {
        "ade20k_150": (_numbered(range(1, 151)), frozenset({0}), ".png"),
        "ade20k_847": (_numbered(range(847)), frozenset({65535}), ".tif"),
        "pascal_context_59": (_numbered(range(59)), border, ".png"),
        "pascal_context_60": ({n: n + 1 for n in range(59)} | {255: 0}, frozenset(), ".png"),
        "pascal_context_459": (_numbered(range(459)), frozenset({65535}), ".tif"),
        "pascal_voc_20": (_numbered(voc), frozenset({0, 255}), ".png"),
        "pascal_voc_21": (_numbered(range(21)), border, ".png"),
        "pascal_voc_20b": (_numbered(voc) | {0: 20}, border, ".png"),
        "cityscapes": (_numbered(street), other, "_gtFine_labelIds.png"),
        "mapillary": (_numbered(range(65)), frozenset({65}), ".png"),
        "coco_stuff": (_numbered(stuff), border, ".png"),
        "coco_object": (background | things, frozenset(), ".png"),
        "scenes": (_numbered(scenes_classes().category_ids), frozenset({0}), ".png"),
    }


def _numbered(numbers: Iterable[int]) -> dict[int, int]:
    return {number: i for i, number in enumerate(numbers)}
