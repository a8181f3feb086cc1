"""Which vocabularies a server keeps, so that their words need not be sent again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.vocabulary import Vocabulary
from ovperception.wire import vocabulary_message

__all__ = ["Handles", "NamedWords", "StoredVocabulary", "Words", "as_words"]

_MOST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVocabulary:
    """A vocabulary that a server keeps by name; ask with it as with words.

    Attributes:
        name: Its name, such as ``vocabularies/kitchen``, or that of a built-in one.
        display_name: What people call it.
        etag: Its version.
        content_hash: Hash over all that decides its embeddings.
        ttl_s: How long it lives without being used; 0 means for ever.
        words: Its words, where they were asked for.
    """

    name: str
    display_name: str = ""
    etag: str = ""
    content_hash: str = ""
    ttl_s: float = 0.0
    words: Vocabulary | None = None


Words = Sequence[str] | Vocabulary | StoredVocabulary


def as_words(words: Words) -> Vocabulary | StoredVocabulary:
    """Words, checked.

    Raises:
        InvalidVocabulary: They are none.
    """
    return words if isinstance(words, Vocabulary | StoredVocabulary) else Vocabulary.from_words(words)


@dataclass(frozen=True, slots=True)
class NamedWords:
    """Words as a request names them.

    Attributes:
        spec: What goes into the request.
        key: What `Handles.learn` and `Handles.forget` call them; empty if the caller keeps them by name.
    """

    spec: VocabularySpec
    key: str

    @property
    def by_handle(self) -> bool:
        """Whether the server must remember them."""
        return bool(self.key) and self.spec.WhichOneof("value") == "name"


class Handles:
    """What the server said about the words it was sent. Safe to use from several threads."""

    def __init__(self) -> None:
        self._specs: OrderedDict[str, VocabularySpec] = OrderedDict()  # by content: in full
        self._handles: dict[str, str] = {}  # by content
        self._lock = threading.Lock()

    def name(self, words: Words, *, in_full: bool = False) -> NamedWords:
        """Words as a request names them.

        Args:
            words: The classes.
            in_full: Whether to leave handles alone, where nobody could send the words again.

        Raises:
            InvalidVocabulary: They are no words.
        """
        vocabulary = as_words(words)
        if isinstance(vocabulary, StoredVocabulary):
            return NamedWords(VocabularySpec(name=vocabulary.name), "")
        # The name is no part of the content, and is echoed.
        key = f"{vocabulary.content_hash} {vocabulary.name}"
        with self._lock:
            handle = self._handles.get(key)
            if handle is not None and not in_full:
                return NamedWords(VocabularySpec(name=handle), key)
            # A stream asks with the same words for every frame.
            known = self._specs.get(key)
        if known is None:
            known = VocabularySpec(inline=vocabulary_message(vocabulary))
            with self._lock:
                self._specs[key] = known
                while len(self._specs) > _MOST:
                    dropped, _ = self._specs.popitem(last=False)
                    self._handles.pop(dropped, None)
        return NamedWords(known, key)

    def learn(self, key: str, handle: str) -> None:
        """The server keeps words under a handle."""
        with self._lock:
            if handle and key in self._specs:
                self._handles[key] = handle

    def forget(self, key: str) -> None:
        """The server does not keep them any more."""
        with self._lock:
            self._handles.pop(key, None)
