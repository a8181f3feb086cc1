"""The methods of `VocabularyService`: vocabularies that requests can name."""

from __future__ import annotations

import time
from collections.abc import Iterable

import grpc

from ovperception.errors import InvalidParameter, InvalidVocabulary
from ovperception.v1 import vocabulary_service_pb2 as pb
from ovperception.v1.vocabulary_pb2 import Vocabulary as VocabularyMessage
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.v1.vocabulary_service_pb2_grpc import VocabularyServiceServicer
from ovperception.vocabulary import Vocabulary, builtin_names
from ovperception.wire import vocabulary_message
from serving import requests
from serving.config import ServerConfig
from serving.security import caller
from serving.vocabularies import PREFIX, KeptVocabularies, KeptVocabulary

__all__ = ["VocabularyService"]

_MAX_PAGE = 1000
_WORDS = frozenset({"classes", "templates", "template_set", "background"})
_PATHS = _WORDS | {"display_name", "ttl"}
_MAX_DISPLAY_NAME = 256


class VocabularyService(VocabularyServiceServicer):
    """Vocabularies kept by name; each caller sees their own.

    Args:
        kept: Where they are.
        config: Limits.
    """

    def __init__(self, kept: KeptVocabularies, config: ServerConfig) -> None:
        self._kept = kept
        self._config = config

    def CreateVocabulary(
        self, request: pb.CreateVocabularyRequest, context: grpc.ServicerContext
    ) -> pb.CreateVocabularyResponse:
        """Keep a vocabulary."""
        given = request.vocabulary
        entry = self._kept.create(
            self._words(given),
            caller().name,
            identifier=request.vocabulary_id,
            display_name=_display_name(given),
            ttl_s=_ttl_s(given),
        )
        return pb.CreateVocabularyResponse(vocabulary=self._card(entry))

    def GetVocabulary(
        self, request: pb.GetVocabularyRequest, context: grpc.ServicerContext
    ) -> pb.GetVocabularyResponse:
        """Give one in full."""
        if not request.name.startswith(PREFIX):
            words = Vocabulary.builtin(request.name)
            message = vocabulary_message(words)
            message.content_hash = words.content_hash
            return pb.GetVocabularyResponse(vocabulary=message)
        entry = self._kept.get(request.name, caller().name)
        message = vocabulary_message(entry.words)
        message.MergeFrom(self._card(entry))
        return pb.GetVocabularyResponse(vocabulary=message)

    def ListVocabularies(
        self, request: pb.ListVocabulariesRequest, context: grpc.ServicerContext
    ) -> pb.ListVocabulariesResponse:
        """List those of the caller, by name; the token of a page is the last name of the one before."""
        if request.page_size < 0:
            raise InvalidParameter(
                "A page has a negative size", field="page_size", expected="0 or more", got=request.page_size
            )
        size = min(request.page_size or _MAX_PAGE, _MAX_PAGE)
        entries = [e for e in self._kept.list(caller().name) if e.name > request.page_token]
        more = len(entries) > size
        return pb.ListVocabulariesResponse(
            vocabularies=map(self._card, entries[:size]),
            next_page_token=entries[size - 1].name if more else "",
            builtin_names=builtin_names(),
        )

    def UpdateVocabulary(
        self, request: pb.UpdateVocabularyRequest, context: grpc.ServicerContext
    ) -> pb.UpdateVocabularyResponse:
        """Change one."""
        given = request.vocabulary
        paths = _paths(request.update_mask.paths, given)
        entry = self._kept.update(
            given.name,
            caller().name,
            words=self._words(given) if paths & _WORDS else None,
            display_name=_display_name(given) if "display_name" in paths else None,
            ttl_s=_ttl_s(given) if "ttl" in paths else None,
            etag=given.etag,
        )
        return pb.UpdateVocabularyResponse(vocabulary=self._card(entry))

    def DeleteVocabulary(
        self, request: pb.DeleteVocabularyRequest, context: grpc.ServicerContext
    ) -> pb.DeleteVocabularyResponse:
        """Forget one."""
        self._kept.delete(request.name, caller().name, etag=request.etag)
        return pb.DeleteVocabularyResponse()

    def _words(self, given: VocabularyMessage) -> Vocabulary:
        anonymous = VocabularyMessage()
        anonymous.CopyFrom(given)
        for field in ("name", "display_name", "etag", "content_hash", "expire_time", "ttl"):
            anonymous.ClearField(field)
        try:
            spec = VocabularySpec(inline=anonymous)
            return requests.vocabulary(spec, self._config.max_classes, self._config.max_texts)
        except InvalidVocabulary as error:
            error.field = error.field.replace("vocabulary.inline", "vocabulary")
            raise

    def _card(self, entry: KeptVocabulary) -> VocabularyMessage:
        """What is told of a vocabulary without its classes."""
        card = VocabularyMessage(
            name=entry.name,
            display_name=entry.display_name,
            etag=entry.etag,
            content_hash=entry.words.content_hash,
        )
        card.ttl.FromNanoseconds(int(1e9 * entry.ttl_s))
        card.expire_time.FromNanoseconds(time.time_ns() + int(1e9 * self._kept.left_s(entry)))
        return card


def _paths(mask: Iterable[str], given: VocabularyMessage) -> set[str]:
    """What an update changes."""
    paths = set(mask)
    if "*" in paths:
        return set(_PATHS)
    for path in paths - _PATHS:
        raise InvalidParameter(
            "This cannot be changed",
            field="update_mask",
            expected=" or ".join(sorted(_PATHS)),
            got=repr(path),
        )
    return paths or {field.name for field, _ in given.ListFields() if field.name in _PATHS}


def _display_name(given: VocabularyMessage) -> str:
    if len(given.display_name) > _MAX_DISPLAY_NAME:
        raise InvalidParameter(
            "The name for people is too long",
            field="vocabulary.display_name",
            expected=f"up to {_MAX_DISPLAY_NAME} characters",
            got=len(given.display_name),
        )
    return given.display_name


def _ttl_s(given: VocabularyMessage) -> float:
    return given.ttl.seconds + given.ttl.nanos / 1e9
