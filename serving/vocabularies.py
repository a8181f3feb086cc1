"""Vocabularies kept by handle: named by their content or by their owner, and forgotten when nobody asks.

Bounded by bytes. When room is needed, whoever holds most of it loses what they have not used for longest, so
that one caller with many vocabularies cannot push out everybody else's.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ovperception.errors import AlreadyExists, Conflict, InvalidParameter, VocabularyNotFound
from ovperception.vocabulary import Vocabulary

__all__ = ["PREFIX", "KeptVocabularies", "KeptVocabulary", "content_name"]

PREFIX = "vocabularies/"
_CONTENT_PREFIX = f"{PREFIX}sha256-"
_ID = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_SWEEP_EVERY_S = 1.0
# What a small entry and a class take besides their words; measured to the nearest hundred.
_ENTRY_BYTES = 1000
_CLASS_BYTES = 300


@dataclass(slots=True, kw_only=True)
class KeptVocabulary:
    """One kept vocabulary; `expires_s` is on the store's clock, and alone changes.

    Attributes:
        name: What requests call it.
        owner: Who keeps it.
        words: The vocabulary.
        display_name: What people call it.
        nbytes: About what it takes.
        ttl_s: How long it lives without being used.
        expires_s: When that ends.
    """

    name: str
    owner: str
    words: Vocabulary
    display_name: str
    nbytes: int
    ttl_s: float
    expires_s: float

    @property
    def etag(self) -> str:
        """Differs whenever the entry does; its use and its time do not count."""
        text = "\n".join((self.words.content_hash, self.display_name, f"{self.ttl_s:.3f}"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def by_content(self) -> bool:
        """Whether the name says what the words are, so that they cannot change."""
        return self.name.startswith(_CONTENT_PREFIX)


def content_name(words: Vocabulary) -> str:
    """The name of a vocabulary that has none of its own."""
    return f"{_CONTENT_PREFIX}{words.content_hash}"


class KeptVocabularies:
    """The store. Safe to use from several threads.

    Args:
        max_bytes: About what the vocabularies take together.
        ttl_s: How long one lives without being used, at most and by default.
        clock: Seconds that only grow.
    """

    def __init__(self, *, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: dict[str, OrderedDict[str, KeptVocabulary]] = {}  # by owner, least recently used first
        self._bytes: dict[str, int] = {}  # by owner
        self._swept_s = clock()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(self._bytes.values())

    def keep(self, words: Vocabulary, owner: str) -> KeptVocabulary | None:
        """Keep `words` under the name of their content; None if they are larger than the whole store.

        What is kept already is renewed, with the time it was given.
        """
        name = content_name(words)
        with self._lock:
            found = self._find(name, owner)
            if found is not None:
                return self._renew(found)
            return self._put(self._entry(name, owner, words))

    def create(
        self,
        words: Vocabulary,
        owner: str,
        *,
        identifier: str = "",
        display_name: str = "",
        ttl_s: float = 0.0,
    ) -> KeptVocabulary:
        """Keep `words` under a name of their own, or of their content if `identifier` is empty.

        Raises:
            InvalidParameter: The identifier or the time cannot be, or the words are larger than the store.
            AlreadyExists: The name is taken.
        """
        _check_identifier(identifier)
        name = f"{PREFIX}{identifier}" if identifier else content_name(words)
        with self._lock:
            if identifier and self._find(name, owner) is not None:
                raise AlreadyExists(
                    "There is a vocabulary of this name",
                    field="vocabulary_id",
                    got=identifier,
                    mend="Take another one, or update it",
                )
            entry = self._entry(name, owner, words, display_name=display_name, ttl_s=self._checked_ttl(ttl_s))
            return self._put_or_refuse(entry)

    def get(self, name: str, owner: str) -> KeptVocabulary:
        """The vocabulary of this name, which lives on for another `ttl_s`.

        Raises:
            VocabularyNotFound: It was never there, has expired, or was dropped to make room.
        """
        with self._lock:
            return self._renew(self._known(name, owner))

    def list(self, owner: str) -> list[KeptVocabulary]:
        """The vocabularies of `owner`, by name; their time goes on."""
        with self._lock:
            self._sweep()
            return [entry for _, entry in sorted(self._kept.get(owner, OrderedDict()).items())]

    def update(
        self,
        name: str,
        owner: str,
        *,
        words: Vocabulary | None = None,
        display_name: str | None = None,
        ttl_s: float | None = None,
        etag: str = "",
    ) -> KeptVocabulary:
        """Change what is given.

        Raises:
            VocabularyNotFound: There is none of this name.
            Conflict: `etag` is not the present one.
            InvalidParameter: The time cannot be, or other words are given for a name that says what they are.
        """
        with self._lock:
            found = self._known(name, owner)
            _check_etag(found, etag)
            if words is not None and found.by_content and words.content_hash != found.words.content_hash:
                raise InvalidParameter(
                    "The words of this vocabulary are its name",
                    field="vocabulary.name",
                    got=name,
                    mend="Create another one, with a vocabulary_id to change it later",
                )
            changed = self._entry(
                name,
                owner,
                found.words if words is None else words,
                display_name=found.display_name if display_name is None else display_name,
                ttl_s=found.ttl_s if ttl_s is None else self._checked_ttl(ttl_s),
            )
            return self._put_or_refuse(changed)

    def delete(self, name: str, owner: str, *, etag: str = "") -> None:
        """Forget one.

        Raises:
            VocabularyNotFound: There is none of this name.
            Conflict: `etag` is not the present one.
        """
        with self._lock:
            found = self._known(name, owner)
            _check_etag(found, etag)
            self._drop(found)

    def left_s(self, entry: KeptVocabulary) -> float:
        """Seconds until `entry` ends if it is not used."""
        return entry.expires_s - self._clock()

    def _checked_ttl(self, ttl_s: float) -> float:
        if not 0 <= ttl_s <= self._ttl_s:
            raise InvalidParameter(
                "A vocabulary cannot be kept for so long",
                field="vocabulary.ttl",
                expected=f"up to {self._ttl_s:g} s, or 0 for that",
                got=ttl_s,
            )
        return ttl_s or self._ttl_s

    def _entry(
        self, name: str, owner: str, words: Vocabulary, *, display_name: str = "", ttl_s: float = 0.0
    ) -> KeptVocabulary:
        ttl_s = ttl_s or self._ttl_s
        return KeptVocabulary(
            name=name,
            owner=owner,
            words=words,
            display_name=display_name,
            nbytes=_size(words),
            ttl_s=ttl_s,
            expires_s=self._clock() + ttl_s,
        )

    def _find(self, name: str, owner: str) -> KeptVocabulary | None:
        kept = self._kept.get(owner)
        found = None if kept is None else kept.get(name)
        if found is not None and found.expires_s <= self._clock():
            self._drop(found)
            return None
        return found

    def _known(self, name: str, owner: str) -> KeptVocabulary:
        found = self._find(name, owner)
        if found is None:
            raise VocabularyNotFound(
                "The server does not keep this vocabulary (any more)",
                field="vocabulary.name",
                got=name,
                mend="Send the words again, or create it again",
            )
        return found

    def _renew(self, entry: KeptVocabulary) -> KeptVocabulary:
        entry.expires_s = self._clock() + entry.ttl_s
        self._kept[entry.owner].move_to_end(entry.name)
        return entry

    def _put_or_refuse(self, entry: KeptVocabulary) -> KeptVocabulary:
        put = self._put(entry)
        if put is None:
            raise InvalidParameter(
                "The vocabulary is larger than all that the server keeps",
                field="vocabulary.classes",
                expected=f"about {self._max_bytes} bytes",
                got=entry.nbytes,
            )
        return put

    def _put(self, entry: KeptVocabulary) -> KeptVocabulary | None:
        if entry.nbytes > self._max_bytes:
            return None
        self._sweep()
        if entry.owner in self._kept and entry.name in self._kept[entry.owner]:
            self._drop(self._kept[entry.owner][entry.name])
        while self.nbytes + entry.nbytes > self._max_bytes:
            heaviest = max(self._bytes, key=self._bytes.__getitem__)
            self._drop(next(iter(self._kept[heaviest].values())))
        self._kept.setdefault(entry.owner, OrderedDict())[entry.name] = entry
        self._bytes[entry.owner] = self._bytes.get(entry.owner, 0) + entry.nbytes
        return entry

    def _drop(self, entry: KeptVocabulary) -> None:
        kept = self._kept[entry.owner]
        del kept[entry.name]
        self._bytes[entry.owner] -= entry.nbytes
        if not kept:
            del self._kept[entry.owner], self._bytes[entry.owner]

    def _sweep(self) -> None:
        """Drop what has expired; times differ, so all must be looked at, and not at every call."""
        now = self._clock()
        if now - self._swept_s < _SWEEP_EVERY_S:
            return
        self._swept_s = now
        for entry in [entry for kept in self._kept.values() for entry in kept.values()]:
            if entry.expires_s <= now:
                self._drop(entry)


def _size(words: Vocabulary) -> int:
    texts = [*(words.templates or ()), *(words.background or ())]
    for entry in words.classes:
        texts += [entry.name, *entry.synonyms, *entry.negatives]
    return _ENTRY_BYTES + _CLASS_BYTES * len(words) + sum(60 + len(text) for text in texts)


def _check_identifier(identifier: str) -> None:
    if identifier and not (_ID.fullmatch(identifier) and not identifier.startswith("sha256-")):
        raise InvalidParameter(
            "No such name for a vocabulary",
            field="vocabulary_id",
            expected="1 to 63 of a-z, 0-9, - and _, beginning with a letter, and not with sha256-",
            got=identifier,
        )


def _check_etag(entry: KeptVocabulary, etag: str) -> None:
    if etag and etag != entry.etag:
        raise Conflict(
            "The vocabulary was changed in between",
            field="etag",
            expected=entry.etag,
            got=etag,
            mend="Get it again, and decide again",
        )
