"""The words a question is asked with: classes, synonyms, thing or stuff, templates, thresholds."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from ovperception.datasets.vocabularies import (
    VocabularyFile,
    load_vocabulary_file,
    parse_vocabulary,
)
from ovperception.datasets.vocabularies import (
    names as builtin_names,
)
from ovperception.errors import InvalidVocabulary, MissingFile, UnknownVocabulary
from ovperception.stuff import default_stuff
from ovperception.templates import resolve_templates
from ovperception.word_text import MAX_PROMPT_LENGTH, MAX_SYNONYMS, check_text, clean, split_synonyms

__all__ = [
    "MAX_CLASSES",
    "MAX_PROMPT_LENGTH",
    "MAX_SYNONYMS",
    "MAX_TEXTS",
    "Vocabulary",
    "VocabularyClass",
    "builtin_names",
    "check_texts",
]

MAX_CLASSES = 20_000
MAX_TEXTS = 100_000
_SCENES = ("scenes", "scenes_base", "scenes_novel")
"""Lists of our own world; the others are files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyClass:
    """One class of a question.

    Attributes:
        name: How the class is called in results.
        synonyms: The strings that are prompted, the name alone if not given; a class scores as its best one.
        is_thing: Countable (boxes, instances) or stuff (one region an image).
        negatives: Strings that look alike and are not meant; whoever wants them contrasted asks for them.
        score_threshold: Overrides the threshold of the request for this class, 0-1.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    is_thing: bool = True
    negatives: tuple[str, ...] = ()
    score_threshold: float | None = None

    def __post_init__(self) -> None:
        where = "vocabulary.classes"
        check_text(self.name, where)
        object.__setattr__(self, "synonyms", tuple(self.synonyms) or (self.name,))
        object.__setattr__(self, "negatives", tuple(self.negatives))
        for text in (*self.synonyms, *self.negatives):
            check_text(text, where)
        if max(len(self.synonyms), len(self.negatives)) > MAX_SYNONYMS:
            raise InvalidVocabulary(
                f"Too many synonyms or negatives of {self.name!r}",
                field=where,
                expected=f"up to {MAX_SYNONYMS}",
                got=max(len(self.synonyms), len(self.negatives)),
            )
        threshold = self.score_threshold
        if threshold is not None and not (math.isfinite(threshold) and 0 <= threshold <= 1):
            raise InvalidVocabulary(
                f"Bad threshold of {self.name!r}",
                field=f"{where}.score_threshold",
                expected="a number from 0 to 1",
                got=threshold,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Classes in the order of their indices, and the templates they are prompted with.

    Attributes:
        classes: At least one; names are unique.
        templates: Texts with ``{}``; None means the model's own.
        background: What else may be in the picture, ``a|b`` for synonyms. These words compete with the
            classes for every object and are never reported; without them "taxi" alone would be said of
            everything that is an object at all. None means the model's own, () none.
        name: What the vocabulary is called, no part of its identity.
    """

    classes: tuple[VocabularyClass, ...]
    templates: tuple[str, ...] | None = None
    background: tuple[str, ...] | None = None
    name: str = ""
    _hash: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        _check_count(len(self.classes))
        seen: dict[str, int] = {}
        for index, entry in enumerate(self.classes):
            if seen.setdefault(entry.name, index) != index:
                raise InvalidVocabulary(
                    f"The class {entry.name!r} is given twice, at {seen[entry.name]} and {index}",
                    field=f"vocabulary.classes[{index}]",
                    expected="every class once",
                    mend='Write synonyms as one entry, "taxi|cab"',
                )
        if (texts := sum(len(c.synonyms) for c in self.classes)) > MAX_TEXTS:
            raise InvalidVocabulary(
                "Too many synonyms in all", field="vocabulary", expected=f"up to {MAX_TEXTS}", got=texts
            )
        if self.background is not None:
            if isinstance(self.background, str):
                raise InvalidVocabulary(
                    "One string is not a list of background words",
                    field="vocabulary.background",
                    expected='a list such as ["tree", "house|cottage"]',
                    got=repr(self.background),
                )
            object.__setattr__(self, "background", tuple(self.background))
            if len(self.background) > MAX_CLASSES:
                raise InvalidVocabulary(
                    "Too many background words",
                    field="vocabulary.background",
                    expected=f"up to {MAX_CLASSES}",
                    got=len(self.background),
                )
        if self.templates is not None:
            object.__setattr__(self, "templates", resolve_templates(self.templates))

    def __len__(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, in order."""
        return tuple(c.name for c in self.classes)

    @property
    def texts(self) -> tuple[str, ...]:
        """All synonyms, grouped by class in order: the T rows of a classifier."""
        return tuple(s for c in self.classes for s in c.synonyms)

    @property
    def synonym_counts(self) -> tuple[int, ...]:
        """Synonyms of each class, in order; they sum to T."""
        return tuple(len(c.synonyms) for c in self.classes)

    @property
    def is_thing(self) -> tuple[bool, ...]:
        """Thing or stuff of each class, in order."""
        return tuple(c.is_thing for c in self.classes)

    def score_thresholds(self, default: float) -> tuple[float, ...]:
        """The least score of each class, in order: `default` for those without one of their own."""
        return tuple(default if c.score_threshold is None else c.score_threshold for c in self.classes)

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) over everything that changes answers: all but the vocabulary's own name."""
        if not self._hash:
            rows = [[c.name, c.synonyms, c.is_thing, c.negatives, c.score_threshold] for c in self.classes]
            text = json.dumps([rows, self.templates, self.background], ensure_ascii=True)
            object.__setattr__(self, "_hash", hashlib.sha256(text.encode()).hexdigest())
        return self._hash

    def with_competitors(self, default: Sequence[str] = ()) -> Vocabulary:
        """The same classes and, behind them, one class for everything that competes with them.

        Competitors are the background (or `default` where that is None) and the classes' negatives, less
        what shares a word with a class.

        Args:
            default: The model's own background.

        Returns:
            This vocabulary itself if nothing competes; otherwise class i is still this one's for i < K.
        """
        words = [*(default if self.background is None else self.background)]
        words += [negative for c in self.classes for negative in c.negatives]
        taken = {text.casefold() for c in self.classes for text in (c.name, *c.synonyms)}
        extra = []
        for index, word in enumerate(words):
            synonyms = split_synonyms(word, index, "vocabulary.background")
            if taken.isdisjoint(s.casefold() for s in synonyms):
                taken.update(s.casefold() for s in synonyms)
                extra.append(VocabularyClass(name=synonyms[0], synonyms=synonyms))
        if not extra:
            return self
        return Vocabulary(classes=(*self.classes, *extra), templates=self.templates, background=())

    @classmethod
    def from_words(
        cls,
        words: Sequence[str] | Vocabulary,
        *,
        templates: str | Sequence[str] | None = None,
        stuff: Iterable[str] | None = None,
        background: Sequence[str] | None = None,
    ) -> Vocabulary:
        """Makes a vocabulary of plain words.

        Args:
            words: One string a class; ``"traffic light|stoplight"`` are synonyms of a class named by the
                first. White space around them is stripped. A `Vocabulary` is taken as it is, but for what
                the other arguments say.
            templates: Name of a built-in set, one template, or a list; None leaves the choice to the model.
            stuff: Names of the classes that are stuff. Default: those that are stuff in COCO panoptic,
                ADE20K, Cityscapes or our scenes, and a thing in none of them nor in LVIS.
            background: As the attribute; None leaves it to the model, or to the `Vocabulary` given.

        Raises:
            InvalidVocabulary: With the path of the offending entry.
        """
        if isinstance(words, Vocabulary):
            return words._with(templates=templates, stuff=stuff, background=background)
        entries = _entries(words)
        synonyms = [split_synonyms(word, index) for index, word in enumerate(entries)]
        names = [s[0] for s in synonyms]
        wanted = default_stuff() if stuff is None else _stuff_names(stuff, names)
        fold = str.lower if stuff is None else str
        return cls(
            classes=tuple(
                VocabularyClass(name=s[0], synonyms=s, is_thing=fold(s[0]) not in wanted) for s in synonyms
            ),
            templates=None if templates is None else resolve_templates(templates),
            background=None if background is None else tuple(background),
        )

    def _with(
        self,
        *,
        templates: str | Sequence[str] | None,
        stuff: Iterable[str] | None,
        background: Sequence[str] | None,
    ) -> Vocabulary:
        """The same words, and what is said of them here in place of what they say; as for `from_words`."""
        classes = self.classes
        if stuff is not None:
            wanted = _stuff_names(stuff, self.names)
            classes = tuple(replace(c, is_thing=c.name not in wanted) for c in classes)
        return replace(
            self,
            classes=classes,
            templates=self.templates if templates is None else resolve_templates(templates),
            background=self.background if background is None else tuple(background),
        )

    @classmethod
    def builtin(cls, name: str, *, templates: str | Sequence[str] | None = None) -> Vocabulary:
        """Gives the class list of a data set, such as ``lvis_v1_1203``, or of our own world, ``scenes``.

        Raises:
            UnknownVocabulary: No list of this name.
        """
        if name in _SCENES:
            from ovperception.datasets.scenes.vocabulary import Part, scenes_vocabulary

            part = cast("Part", name.partition("_")[2] or "all")
            return cls.from_words(scenes_vocabulary(part), templates=templates)
        if name not in builtin_names():
            raise UnknownVocabulary(
                "Unknown vocabulary",
                field="vocabulary.name",
                expected=f"one of {', '.join((*builtin_names(), *_SCENES))}",
                got=repr(name),
            )
        return cls._of(load_vocabulary_file(name), templates)

    @classmethod
    def from_file(cls, path: Path | str, *, templates: str | Sequence[str] | None = None) -> Vocabulary:
        """Reads a vocabulary file.

        Args:
            path: ``.json`` as our own files or a list of words; otherwise text with one class a line,
                ``a|b`` for synonyms, or FC-CLIP's ``id:name,synonym`` on every line. Blank lines and ``#``
                lines are skipped.
            templates: As for `from_words`.

        Raises:
            MissingFile: No such file.
            InvalidVocabulary: Not of these forms.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (FileNotFoundError, IsADirectoryError):
            raise MissingFile("No such vocabulary file", field="vocabulary", got=path) from None
        except UnicodeDecodeError as error:
            raise InvalidVocabulary(f"{path.name} is not UTF-8 text", field="vocabulary", got=error) from None
        if path.suffix == ".json":
            try:
                data = json.loads(text)
            except json.JSONDecodeError as error:
                raise InvalidVocabulary(f"{path.name} is not JSON", field="vocabulary", got=error) from None
            return cls._of(parse_vocabulary(data, where=path.stem), templates)
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        if lines and all(re.match(r"\d+:", line) for line in lines):
            bodies = [line.partition(":")[2] for line in lines]
            # FC-CLIP's lists begin with a placeholder for the background id.
            lines = [b.replace(",", "|") for b in bodies if b != "invalid_class_id"]
        return replace(cls.from_words(lines, templates=templates), name=path.stem)

    @classmethod
    def _of(cls, file: VocabularyFile, templates: str | Sequence[str] | None) -> Vocabulary:
        _check_count(len(file.classes))
        stuff = default_stuff() if any(c.is_thing is None for c in file.classes) else frozenset()
        classes = []
        for index, entry in enumerate(file.classes):
            synonyms = tuple(
                clean(s, f"vocabulary.classes[{index}].synonyms[{j}]") for j, s in enumerate(entry.synonyms)
            )
            thing = entry.is_thing
            if thing is None:
                # LVIS and Objects365 are detection sets: every class is countable.
                thing = entry.frequency is not None or synonyms[0].lower() not in stuff
            name = clean(entry.name, f"vocabulary.classes[{index}]")
            classes.append(VocabularyClass(name=name, synonyms=synonyms, is_thing=thing))
        chosen = None if templates is None else resolve_templates(templates)
        return cls(classes=tuple(classes), templates=chosen, name=file.name)


def check_texts(texts: Sequence[str]) -> list[str]:
    """Texts to embed as they are, where one may come twice.

    Raises:
        InvalidVocabulary: There are none, or too many, or one is no text.
    """
    if isinstance(texts, str) or texts is None or not len(texts):
        raise InvalidVocabulary(
            "There is nothing to embed", field="texts", expected="a list of at least one string", got=texts
        )
    Vocabulary.from_words(list(dict.fromkeys(texts)))  # the same checks as any vocabulary
    return list(texts)


def _stuff_names(stuff: Iterable[str], names: Sequence[str]) -> frozenset[str]:
    if isinstance(stuff, str):
        stuff = [stuff]
    wanted = frozenset(s.strip() for s in stuff)
    if unknown := sorted(wanted - frozenset(names)):
        raise InvalidVocabulary(
            "Stuff that is no class of the vocabulary",
            field="vocabulary.stuff",
            expected="names of classes",
            got=", ".join(unknown),
        )
    return wanted


def _entries(words: Sequence[str]) -> list[str]:
    """A list of words as a list."""
    if isinstance(words, str | bytes):
        raise InvalidVocabulary(
            "One string is not a list of words",
            field="vocabulary.classes",
            expected='a list such as ["taxi", "traffic light|stoplight"]',
            got=repr(words),
            mend="Put it in a list, or split it at its commas first",
        )
    try:
        entries = list(words)
    except TypeError:
        raise InvalidVocabulary(
            "Words are not a list",
            field="vocabulary.classes",
            expected="a list of strings",
            got=repr(words),
        ) from None
    _check_count(len(entries))
    return entries


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_CLASSES:
        raise InvalidVocabulary(
            "Bad number of classes", field="vocabulary.classes", expected=f"1 to {MAX_CLASSES}", got=count
        )
