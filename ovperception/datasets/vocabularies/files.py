"""Vocabulary files: JSON, one class a line, in the order of the contiguous class index.

``{"name": ..., "source": [...], "licence": ..., "void": 255, "classes": [{"id": 1, "name": "person",
"synonyms": ["person", "child"], "isthing": 1}, ...]}``; of a class only ``name`` is required. ``source``
names repository, commit and path the list was taken from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from ovperception.errors import InvalidVocabulary, UnknownVocabulary

__all__ = [
    "ClassEntry",
    "VocabularyFile",
    "load_table",
    "load_vocabulary_file",
    "names",
    "parse_vocabulary",
    "part_of",
]

Part = Literal["base", "novel", "r", "c", "f", "things", "stuff"]
_TABLES = ("cityscapes_labels_all", "coco_to_lvis")
"""Facts that go with the lists but are no vocabularies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEntry:
    """One class of a data set.

    Attributes:
        id: The category or label id in the data set's files.
        name: The data set's spelling.
        synonyms: What is prompted; the name itself where the list has nothing better.
        is_thing: Countable or stuff; None where the data set does not say.
        train_id: Contiguous id of data sets that have both, else None.
        frequency: LVIS only: r (up to 10 training images), c (up to 100), f.
        image_count: LVIS only: training images that contain it.
        split: ``base`` or ``novel`` in the open-vocabulary protocol of the list, else None.
        synset: WordNet synset of LVIS classes.
    """

    id: int
    name: str
    synonyms: tuple[str, ...]
    is_thing: bool | None = None
    train_id: int | None = None
    frequency: Literal["r", "c", "f"] | None = None
    image_count: int | None = None
    split: Literal["base", "novel"] | None = None
    synset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyFile:
    """A class list.

    Attributes:
        name: Name of the list.
        source: Where it was taken from.
        licence: Of the source.
        void: Label of unlabelled pixels, where the data set has one.
        classes: In the order of the contiguous class index.
    """

    name: str
    source: tuple[str, ...] = ()
    licence: str = ""
    void: int | None = None
    classes: tuple[ClassEntry, ...]


def _folder() -> Any:
    return files("ovperception").joinpath("datasets", "vocabularies")


@cache
def names() -> tuple[str, ...]:
    """Names of the built-in class lists."""
    found = (
        entry.name.removesuffix(".json") for entry in _folder().iterdir() if entry.name.endswith(".json")
    )
    return tuple(sorted(name for name in found if name not in _TABLES))


@cache
def load_vocabulary_file(name: str) -> VocabularyFile:
    """Reads a built-in class list.

    Raises:
        UnknownVocabulary: No list of this name; the message names the lists there are.
    """
    if name not in names():
        raise UnknownVocabulary(
            "Unknown vocabulary",
            field="vocabulary.name",
            expected=f"one of {', '.join(names())}",
            got=repr(name),
        )
    return parse_vocabulary(_read(name), where=name)


def load_table(name: str) -> tuple[Mapping[str, Any], ...]:
    """Reads a built-in table: ``coco_to_lvis`` or ``cityscapes_labels_all``, one mapping a row.

    Raises:
        UnknownVocabulary: No table of this name.
    """
    if name not in _TABLES:
        raise UnknownVocabulary("Unknown table", expected=f"one of {', '.join(_TABLES)}", got=repr(name))
    return tuple(_read(name)["classes"])


def part_of(name: str, part: Part) -> tuple[int, ...]:
    """Class indices of a part of a built-in list: what a metric is averaged over.

    Args:
        name: of the list.
        part: ``base`` or ``novel`` of its open-vocabulary protocol, ``r``, ``c`` or ``f`` of LVIS,
            ``things`` or ``stuff``.

    Raises:
        UnknownVocabulary: no list of this name, or it is not parted in this way.
    """
    classes = load_vocabulary_file(name).classes
    belongs: dict[Part, Callable[[ClassEntry], bool]] = {
        "base": lambda entry: entry.split == "base",
        "novel": lambda entry: entry.split == "novel",
        "r": lambda entry: entry.frequency == "r",
        "c": lambda entry: entry.frequency == "c",
        "f": lambda entry: entry.frequency == "f",
        "things": lambda entry: entry.is_thing is True,
        "stuff": lambda entry: entry.is_thing is False,
    }
    found = {key: tuple(i for i, c in enumerate(classes) if test(c)) for key, test in belongs.items()}
    if not found.get(part):
        raise UnknownVocabulary(
            f"The vocabulary {name!r} has no such part",
            field="part",
            expected=f"one of {', '.join(key for key, indices in found.items() if indices)}",
            got=repr(part),
        )
    return found[part]


def _read(name: str) -> Any:
    return json.loads(_folder().joinpath(f"{name}.json").read_text(encoding="utf-8"))


def parse_vocabulary(data: object, *, where: str) -> VocabularyFile:
    """Makes a class list of parsed JSON: our files, a list of words (``a|b`` are synonyms), or of classes.

    Args:
        data: What `json.loads` gave.
        where: File name, for messages and as the name where the data has none.

    Raises:
        InvalidVocabulary: Not of these forms.
    """
    if isinstance(data, Sequence) and not isinstance(data, str):
        data = {"classes": data}
    if not isinstance(data, Mapping) or not isinstance(data.get("classes"), list):
        raise InvalidVocabulary(
            f"{where} is not a vocabulary file",
            field="vocabulary",
            expected='{"classes": [{"name": ...}, ...]} or a list of words',
            got=type(data).__name__,
        )
    source = data.get("source") or ()
    void = data.get("void")
    return VocabularyFile(
        name=str(data.get("name") or where),
        source=(source,) if isinstance(source, str) else tuple(map(str, source)),
        licence=str(data.get("licence") or ""),
        void=void if isinstance(void, int) else None,
        classes=tuple(_entry(c, i, where) for i, c in enumerate(data["classes"])),
    )


def _entry(data: object, index: int, where: str) -> ClassEntry:
    if isinstance(data, str):
        data = {"name": data.split("|")[0], "synonyms": data.split("|")}
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        raise InvalidVocabulary(
            f"{where} has a class that is neither a word nor an object with a name",
            field=f"vocabulary.classes[{index}]",
            got=repr(data),
        )
    synonyms = data.get("synonyms") or [data["name"]]
    if not isinstance(synonyms, list) or not all(isinstance(s, str) for s in synonyms):
        raise InvalidVocabulary(
            f"{where} has synonyms that are no list of strings",
            field=f"vocabulary.classes[{index}].synonyms",
            got=repr(synonyms),
        )
    thing, number = data.get("isthing"), data.get("id", index)
    if not isinstance(number, int):
        raise InvalidVocabulary(
            f"{where} has an id that is no integer", field=f"vocabulary.classes[{index}].id", got=repr(number)
        )
    return ClassEntry(
        id=number,
        name=data["name"],
        synonyms=tuple(synonyms),
        is_thing=None if thing is None else bool(thing),
        **{k: data[k] for k in ("train_id", "frequency", "image_count", "split", "synset") if k in data},
    )
