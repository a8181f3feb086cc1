"""The words of a request: named, kept or inline; and which of their classes to report."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from ovperception.errors import InvalidVocabulary
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.v1 import perception_service_pb2, results_pb2
from ovperception.v1.vocabulary_pb2 import VocabularyInfo, VocabularySpec
from ovperception.vocabulary import Vocabulary
from serving import requests
from serving.config import ServerConfig
from serving.vocabularies import PREFIX, KeptVocabularies, KeptVocabulary

__all__ = ["AskedWords", "WordReader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedWords:
    """The words of one question.

    Attributes:
        vocabulary: All of them.
        only: The indices of the classes to report; None for all.
        kept: Where the server keeps them; None where it does not.
        expires_ns: When that ends, in nanoseconds since 1970.
    """

    vocabulary: Vocabulary
    only: frozenset[int] | None = None
    kept: KeptVocabulary | None = None
    expires_ns: int = 0

    @property
    def for_objects(self) -> Vocabulary:
        """The vocabulary to find objects with: a class that is not to be reported takes no one's place."""
        return self.vocabulary if self.only is None else _silenced(_Filtered(self.vocabulary, self.only))

    def objects(self, found: Detections) -> Detections:
        """Only what is to be reported."""
        return found if self.only is None else found.filter(np.isin(found.class_ids, sorted(self.only)))

    def labels(self, found: SemanticMap) -> SemanticMap:
        """The same map, undecided where the class is not to be reported."""
        if self.only is None:
            return found
        labels = np.where(np.isin(found.labels, sorted(self.only)), found.labels, np.int32(-1))
        return replace(found, labels=labels)

    def segments(self, found: PanopticMap) -> PanopticMap:
        """The same map, void where the class is not to be reported."""
        if self.only is None:
            return found
        segments = tuple(segment for segment in found.segments if segment.class_id in self.only)
        ids = np.where(np.isin(found.ids, [segment.id for segment in segments]), found.ids, np.int32(0))
        return replace(found, ids=ids, segments=segments)

    def info(self) -> VocabularyInfo:
        """What a reply says about them."""
        name, digest = self.vocabulary.name, self.vocabulary.content_hash
        if self.kept is None:
            return VocabularyInfo(name=name, content_hash=digest)
        seconds, nanos = divmod(self.expires_ns, 10**9)
        ends = Timestamp(seconds=seconds, nanos=nanos)
        return VocabularyInfo(name=name, content_hash=digest, handle=self.kept.name, expire_time=ends)

    def class_list(self) -> bytes:
        """The ``classes`` of a reply, as bytes to merge: every reply of ours has them at one number."""
        return _class_list(self.vocabulary)


class WordReader:
    """Reads the words of requests; what comes inline is kept, so that it need not come again.

    Args:
        kept: Where they are kept.
        config: Limits.
    """

    def __init__(self, kept: KeptVocabularies, config: ServerConfig) -> None:
        self._kept = kept
        self._config = config

    def read(self, spec: VocabularySpec, owner: str) -> AskedWords:
        """The words of a request of `owner`.

        Raises:
            InvalidVocabulary: There are none, too many, or some that are no words; or a filter names others.
            UnknownVocabulary: The server has, or keeps, none of this name.
        """
        kept: KeptVocabulary | None
        if spec.WhichOneof("value") == "name" and spec.name.startswith(PREFIX):
            kept = self._kept.get(spec.name, owner)
            words = kept.words
        else:
            words = requests.vocabulary(spec, self._config.max_classes, self._config.max_texts)
            kept = self._kept.keep(words, owner) if spec.WhichOneof("value") == "inline" else None
        left_ns = 0 if kept is None else int(1e9 * self._kept.left_s(kept))
        return AskedWords(
            vocabulary=words,
            only=_filter(words, tuple(spec.class_filter)) if spec.class_filter else None,
            kept=kept,
            expires_ns=time.time_ns() + left_ns,
        )


def _filter(words: Vocabulary, names: tuple[str, ...]) -> frozenset[int]:
    known = {name: index for index, name in enumerate(words.names)}
    for position, name in enumerate(names):
        if name not in known:
            raise InvalidVocabulary(
                "The filter names a class that the vocabulary has not",
                field=f"vocabulary.class_filter[{position}]",
                expected=f"one of its {len(known)} names",
                got=repr(name),
            )
    return frozenset(known[name] for name in names)


@dataclass(frozen=True, slots=True)
class _Filtered:
    """Compares by content: to hash a thousand classes anew takes milliseconds."""

    vocabulary: Vocabulary
    only: frozenset[int]

    def __hash__(self) -> int:
        return hash((self.vocabulary.content_hash, self.only))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Filtered) and (self.vocabulary.content_hash, self.only) == (
            other.vocabulary.content_hash,
            other.only,
        )


@lru_cache(maxsize=32)
def _silenced(filtered: _Filtered) -> Vocabulary:
    classes = tuple(
        entry if index in filtered.only else replace(entry, score_threshold=1.0)
        for index, entry in enumerate(filtered.vocabulary.classes)
    )
    return replace(filtered.vocabulary, classes=classes)


_class_lists: OrderedDict[str, bytes] = OrderedDict()


def _class_list(words: Vocabulary) -> bytes:
    """Kept for the next frame: to build a thousand of them takes longer than all else about a reply."""
    found = _class_lists.get(words.content_hash)
    if found is None:
        infos = [results_pb2.ClassInfo(name=entry.name, is_thing=entry.is_thing) for entry in words.classes]
        found = perception_service_pb2.DetectObjectsResponse(classes=infos).SerializeToString()
        _class_lists[words.content_hash] = found
        while len(_class_lists) > 16:
            _class_lists.popitem(last=False)
    return found
