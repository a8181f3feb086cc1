"""One word of a vocabulary as it is written: what it may hold, and ``a|b`` for synonyms."""

from __future__ import annotations

import unicodedata

from ovperception.errors import InvalidVocabulary

__all__ = ["MAX_PROMPT_LENGTH", "MAX_SYNONYMS", "check_text", "clean", "split_synonyms"]

MAX_SYNONYMS = 256
MAX_PROMPT_LENGTH = 256


def split_synonyms(word: object, index: int, where: str = "vocabulary.classes") -> tuple[str, ...]:
    """The synonyms of ``a|b``, each once.

    Args:
        word: What stands there.
        index: Its place in the list `where`, for what is said of it.
        where: Path of the list in a request.

    Raises:
        InvalidVocabulary: It is no text, or one of them is none.
    """
    where = f"{where}[{index}]"
    if not isinstance(word, str):
        raise InvalidVocabulary("A word is not text", field=where, expected="a string", got=repr(word))
    parts = word.split("|")
    if len(parts) > MAX_SYNONYMS:
        raise InvalidVocabulary(
            "Too many synonyms of one class", field=where, expected=f"up to {MAX_SYNONYMS}", got=len(parts)
        )
    return tuple(dict.fromkeys(clean(part, where) for part in parts))


def clean(text: str, where: str) -> str:
    """A word without the white space around it, checked."""
    text = text.strip()
    check_text(text, where)
    return text


def check_text(text: object, where: str) -> None:
    """Refuse what cannot be prompted.

    Raises:
        InvalidVocabulary: It is no text, empty, too long, or has control characters.
    """
    if not isinstance(text, str):
        raise InvalidVocabulary("A word is not text", field=where, expected="a string", got=repr(text))
    if not text.strip():
        raise InvalidVocabulary(
            "A word is empty", field=where, expected="at least one letter", got=repr(text)
        )
    if len(text) > MAX_PROMPT_LENGTH:
        raise InvalidVocabulary(
            "A word is too long",
            field=where,
            expected=f"up to {MAX_PROMPT_LENGTH} characters",
            got=f"{len(text)} characters, {text[:40]!r}...",
        )
    if bad := next((c for c in text if unicodedata.category(c) in ("Cc", "Cs")), None):
        raise InvalidVocabulary(
            "A word has a control character or a lone surrogate",
            field=where,
            expected="printable text",
            got=f"U+{ord(bad):04X} in {text!r}",
        )
