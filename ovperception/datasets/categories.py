"""Which category of a file is which class of a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ovperception.datasets.vocabularies import load_vocabulary_file
from ovperception.errors import InvalidDataset, InvalidParameter
from ovperception.stuff import default_stuff
from ovperception.vocabulary import Vocabulary, VocabularyClass

__all__ = ["Classes", "OtherClasses", "builtin_classes", "classes_of"]

OtherClasses = Literal["refuse", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """A vocabulary and the id its data set gives to each class.

    Attributes:
        vocabulary: the classes.
        category_ids: (K,) in the order of the classes.
    """

    vocabulary: Vocabulary
    category_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        count = len(self.category_ids)
        if count != len(self.vocabulary) or len(set(self.category_ids)) != count:
            raise InvalidParameter(
                "Category ids do not fit the vocabulary",
                field="category_ids",
                expected=f"{len(self.vocabulary)} different ids",
                got=f"{count}, {len(set(self.category_ids))} different",
            )

    @property
    def index(self) -> dict[int, int]:
        """Category id -> class index."""
        return {category_id: i for i, category_id in enumerate(self.category_ids)}


def builtin_classes(name: str) -> Classes:
    """A built-in list such as ``coco_80``, with the ids its data set uses."""
    entries = load_vocabulary_file(name).classes
    return Classes(vocabulary=Vocabulary.builtin(name), category_ids=tuple(e.id for e in entries))


def classes_of(
    categories: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    known: Classes | Vocabulary | None = None,
    others: OtherClasses = "refuse",
) -> Classes:
    """Matches the categories of a COCO-format file with a vocabulary.

    Args:
        categories: the file's, in any order of ids.
        path: of the file, for messages.
        known: None takes the file's own names, ordered by id; a `Vocabulary` is matched by name or synonym
            (case and underscores aside); `Classes` by id.
        others: what to do with categories of the file that `known` does not have.

    Raises:
        InvalidDataset: ids or names are missing or double, a category is unknown, or a class has no category.
    """
    names = _names(categories, path)
    if known is None:
        return _own(names, categories, path)
    if isinstance(known, Vocabulary):
        known = _by_name(names, known, path, others)
    else:
        _check_ids(names, known, path)
    unknown = [f"{i} ({n})" for i, n in names.items() if i not in known.index]
    if unknown and others == "refuse":
        raise InvalidDataset(
            f"{path} has categories that the vocabulary {known.vocabulary.name!r} does not",
            field="categories",
            expected=f"some of its {len(known.category_ids)} classes",
            got=", ".join(unknown),
            mend="Give a vocabulary with these classes, or say that others are to be dropped",
        )
    return known


def _names(categories: Sequence[Mapping[str, Any]], path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for index, row in enumerate(categories):
        number, name = row.get("id"), row.get("name")
        if not isinstance(number, int) or not isinstance(name, str) or not name.strip():
            raise InvalidDataset(
                f"{path} has a category without id or name",
                field=f"categories[{index}]",
                expected='{"id": 1, "name": "person"}',
                got=repr(dict(row))[:100],
            )
        if number in names:
            raise InvalidDataset(
                f"{path} gives two categories one id",
                field=f"categories[{index}].id",
                expected="every id once",
                got=f"{number} for {names[number]!r} and {name!r}",
            )
        names[number] = name.strip()
    if not names:
        raise InvalidDataset(f"{path} has no categories", field="categories", expected="one or more")
    return dict(sorted(names.items()))


def _own(names: Mapping[int, str], categories: Sequence[Mapping[str, Any]], path: Path) -> Classes:
    double = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if double:
        raise InvalidDataset(
            f"{path} has categories of one name",
            field="categories",
            expected="every name once",
            got=", ".join(double),
        )
    rows = {row["id"]: row for row in categories}
    classes = []
    for number, name in names.items():
        synonyms = rows[number].get("synonyms")
        words = (
            synonyms if isinstance(synonyms, list) and all(isinstance(s, str) for s in synonyms) else [name]
        )
        thing = rows[number].get("isthing")
        classes.append(
            VocabularyClass(
                name=name,
                synonyms=tuple(dict.fromkeys(word.replace("_", " ") for word in words)),
                is_thing=name.lower() not in default_stuff() if thing is None else bool(thing),
            )
        )
    return Classes(vocabulary=Vocabulary(classes=tuple(classes), name=path.stem), category_ids=tuple(names))


def _by_name(names: Mapping[int, str], words: Vocabulary, path: Path, others: OtherClasses) -> Classes:
    of_name: dict[str, int] = {}
    for number, name in names.items():
        of_name.setdefault(_folded(name), number)
    ids = []
    for entry in words.classes:
        found = [of_name[n] for n in map(_folded, (entry.name, *entry.synonyms)) if n in of_name]
        if not found:
            raise InvalidDataset(
                f"{path} has no category for the class {entry.name!r}",
                field="categories",
                expected="one called by the class's name or a synonym",
                got=", ".join(names.values()),
            )
        ids.append(found[0])
    return Classes(vocabulary=words, category_ids=tuple(ids))


def _check_ids(names: Mapping[int, str], known: Classes, path: Path) -> None:
    """Refuses a file whose ids mean other classes: releases of one data set were renumbered."""
    index = known.index
    owners = {_folded(c.name): i for i, c in zip(known.category_ids, known.vocabulary.classes, strict=True)}
    for number, name in names.items():
        owner = owners.get(_folded(name))
        if owner is not None and owner != number and number in index:
            raise InvalidDataset(
                f"{path} numbers its categories in another way than {known.vocabulary.name!r}",
                field="categories",
                expected=f"id {owner} for {name!r}",
                got=number,
                mend="Is it of another release? Match by name: give the vocabulary without ids",
            )


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())
