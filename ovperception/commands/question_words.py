"""The words of a question, as flags give them."""

from __future__ import annotations

from pathlib import Path

from ovperception.errors import InvalidParameter, UnknownVocabulary
from ovperception.vocabulary import Vocabulary

__all__ = ["background_words", "words_of"]


def words_of(
    *,
    classes: str | None,
    file: Path | None,
    name: str | None,
    templates: str | None,
    background: str | None,
) -> Vocabulary:
    """The words, and what competes with them.

    Args:
        classes: ``taxi,traffic light|stoplight``.
        file: A file of them.
        name: A built-in list.
        templates: Name of a set of templates, or one; None means the model's own.
        background: As of `background_words`; None means the model's own.

    Raises:
        InvalidParameter: The words are not given, or given twice.
        InvalidVocabulary, UnknownVocabulary, MissingFile: They are none.
    """
    words = _words(classes, file, name, templates)
    return (
        words if background is None else Vocabulary.from_words(words, background=background_words(background))
    )


def _words(classes: str | None, file: Path | None, name: str | None, templates: str | None) -> Vocabulary:
    if (classes is not None) + (file is not None) + (name is not None) != 1:
        raise InvalidParameter(
            "The words must be given once",
            field="classes",
            expected="one of --classes, --classes-file and --vocabulary",
            mend='For example: --classes "taxi,traffic light|stoplight"',
        )
    if classes is not None:
        return Vocabulary.from_words(classes.split(","), templates=templates)
    if file is not None:
        return Vocabulary.from_file(file, templates=templates)
    return Vocabulary.builtin(name or "", templates=templates)


def background_words(text: str) -> tuple[str, ...]:
    """What else may be there: the words of a built-in list, those given, or none for "none"."""
    if text in ("", "none"):
        return ()
    try:
        return tuple("|".join(c.synonyms) for c in Vocabulary.builtin(text).classes)
    except UnknownVocabulary:
        return tuple(text.split(","))
