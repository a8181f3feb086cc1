"""Which vocabularies a server keeps, so that their words need not be sent again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.vocabulary import Vocabulary
from ovperception.wire import vocabulary_message

__all__ = ["Handles"]

_MOST = 64


class Handles:
    """What the server said about the words it was sent. Safe to use from several threads."""

    def __init__(self) -> None:
        self._specs: OrderedDict[str, VocabularySpec] = OrderedDict()  # by content: in full
        self._handles: dict[str, str] = {}  # by content
        self._lock = threading.Lock()

    def spec(self, words: Sequence[str] | Vocabulary, *, in_full: bool = False) -> tuple[VocabularySpec, str]:
        """Words as a request names them, and what `learn` and `forget` call them.

        Args:
            words: The classes.
            in_full: Whether to leave handles alone, where nobody could send the words again.

        Raises:
            InvalidVocabulary: They are no words.
        """
        vocabulary = words if isinstance(words, Vocabulary) else Vocabulary.from_words(words)
        # The name is no part of the content, and is echoed.
        key = f"{vocabulary.content_hash} {vocabulary.name}"
        with self._lock:
            handle = self._handles.get(key)
            if handle is not None and not in_full:
                return VocabularySpec(name=handle), key
            # A stream asks with the same words for every frame.
            known = self._specs.get(key)
        if known is None:
            known = VocabularySpec(inline=vocabulary_message(vocabulary))
            with self._lock:
                self._specs[key] = known
                while len(self._specs) > _MOST:
                    dropped, _ = self._specs.popitem(last=False)
                    self._handles.pop(dropped, None)
        return known, key

    def learn(self, key: str, handle: str) -> None:
        """The server keeps words under a handle."""
        with self._lock:
            if handle and key in self._specs:
                self._handles[key] = handle

    def forget(self, key: str) -> None:
        """The server does not keep them any more."""
        with self._lock:
            self._handles.pop(key, None)
