"""Data sets by name, and the class lists that go with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovperception.datasets.named import dataset_names, named_dataset, open_dataset
from ovperception.datasets.samples import Dataset
from ovperception.datasets.vocabularies import load_vocabulary_file, names, part_of
from ovperception.errors import InvalidParameter, MissingFile, NotFound, UnknownVocabulary
from ovperception.vocabulary import Vocabulary

SIZES = {
    "ade20k_150": 150,
    "ade20k_847": 847,
    "cityscapes_19": 19,
    "coco_80": 80,
    "coco_object_81": 81,
    "coco_panoptic_133": 133,
    "coco_stuff_171": 171,
    "lvis_v0.5_1230": 1230,
    "lvis_v1_1203": 1203,
    "mapillary_65": 65,
    "objects365_365": 365,
    "ov_coco_48_17": 65,
    "pascal_context_459": 459,
    "pascal_context_59": 59,
    "pascal_context_60": 60,
    "pascal_voc_20": 20,
    "pascal_voc_20b": 21,
    "pascal_voc_21": 21,
    "pascal_voc_21_plain": 21,
}


def test_every_list_has_its_classes_and_says_where_it_is_from() -> None:
    assert set(names()) == set(SIZES)
    for name, size in SIZES.items():
        found = load_vocabulary_file(name)
        assert (len(found.classes), len({c.id for c in found.classes})) == (size, size)
        assert len(Vocabulary.builtin(name)) == size
        assert found.source, name
        assert found.licence, name


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("ov_coco_48_17", {"base": 48, "novel": 17}),
        ("lvis_v1_1203", {"base": 866, "novel": 337, "r": 337, "c": 461, "f": 405}),
        ("lvis_v0.5_1230", {"r": 454, "c": 461, "f": 315}),
        ("coco_panoptic_133", {"things": 80, "stuff": 53}),
        ("ade20k_150", {"things": 100, "stuff": 50}),
        ("cityscapes_19", {"things": 8, "stuff": 11}),
        ("mapillary_65", {"things": 37, "stuff": 28}),
    ],
)
def test_parts_have_their_published_sizes(name: str, counts: dict[str, int]) -> None:
    assert {part: len(part_of(name, part)) for part in counts} == counts


def test_parts_that_are_not_there() -> None:
    with pytest.raises(UnknownVocabulary, match="one of things"):
        part_of("coco_80", "novel")


def test_the_lists_agree_with_the_published_ones(shared_dir: Path) -> None:
    import json

    folder = shared_dir / "eval/data/vocab"
    if not folder.is_dir():
        pytest.skip(f"no lists at {folder}")
    for name in set(SIZES) & {path.stem for path in folder.glob("*.json")}:
        rows = json.loads((folder / f"{name}.json").read_text())["classes"]
        ours = load_vocabulary_file(name).classes
        assert [row["name"] for row in rows] == [c.name for c in ours]
        assert [row["dataset_id"] for row in rows] == [c.id for c in ours]
        words = [row.get("prompt_names") or row.get("synonyms") or [row["name"]] for row in rows]
        assert [tuple(dict.fromkeys(w)) for w in words] == [c.synonyms for c in ours], name


@pytest.mark.parametrize("name", dataset_names())
def test_each_name_opens_or_says_what_is_missing(tmp_path: Path, name: str) -> None:
    entry = named_dataset(name)
    if not entry.needs_root:
        assert isinstance(open_dataset(name), Dataset)
        return
    with pytest.raises(InvalidParameter, match="unpacked"):
        open_dataset(name)
    for split in entry.splits:
        with pytest.raises(MissingFile):
            open_dataset(name, tmp_path, split)
    with pytest.raises(InvalidParameter, match="no such split"):
        open_dataset(name, tmp_path, "nosplit")


def test_near_names_are_told() -> None:
    with pytest.raises(NotFound, match="ade20k_150"):
        open_dataset("ade20k-150")
