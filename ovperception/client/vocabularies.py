"""The vocabularies that a server keeps by name: what clients say about them, once for threads and asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovperception.client.async_calls import AsyncCalls
from ovperception.client.calls import Calls
from ovperception.client.dialogue import Ask, Dialogue
from ovperception.client.handles import StoredVocabulary
from ovperception.client.numbers import duration
from ovperception.errors import InvalidParameter
from ovperception.v1 import vocabulary_pb2
from ovperception.v1 import vocabulary_service_pb2 as pb
from ovperception.vocabulary import Vocabulary
from ovperception.wire import read_vocabulary, vocabulary_message

__all__ = ["AsyncVocabularies", "Vocabularies"]

_PREFIX = "vocabularies/"
_WORDS = ("classes", "templates", "template_set", "background")


class Vocabularies:
    """Makes, reads and changes them. `Client.vocabularies`.

    kitchen = client.vocabularies.create(["cup", "pan|skillet"], name="kitchen", ttl_s=86400)
    client.detect(frame, kitchen)
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create(
        self, words: Sequence[str] | Vocabulary, *, name: str = "", display_name: str = "", ttl_s: float = 0
    ) -> StoredVocabulary:
        """Keep words on the server.

        Args:
            words: The words.
            name: What comes behind ``vocabularies/``; empty names them by their content.
            display_name: What people call it.
            ttl_s: How long it lives without being used; 0 leaves it to the server.

        Raises:
            OVPError: It cannot be, or there is one of this name already.
        """
        return self._calls.run(_create(words, name, display_name, ttl_s))

    def get(self, name: str) -> StoredVocabulary:
        """One with its words, by name, or a built-in one.

        Raises:
            UnknownVocabulary: There is none.
        """
        return self._calls.run(_get(name))

    def list(self) -> tuple[StoredVocabulary, ...]:
        """All that the server keeps for this caller, without their words."""
        return self._calls.run(_list())

    def update(
        self,
        stored: StoredVocabulary | str,
        words: Sequence[str] | Vocabulary | None = None,
        *,
        display_name: str | None = None,
        ttl_s: float | None = None,
    ) -> StoredVocabulary:
        """Change one; what is None stays.

        Args:
            stored: Which. Given as it was read, nothing is changed if somebody else has changed it since.
            words: Its words.
            display_name: What people call it.
            ttl_s: How long it lives without being used.

        Raises:
            OVPError: There is none, or it was changed since.
        """
        return self._calls.run(_update(stored, words, display_name, ttl_s))

    def delete(self, stored: StoredVocabulary | str) -> None:
        """Forget one.

        Raises:
            OVPError: There is none, or it was changed since it was read.
        """
        self._calls.run(_delete(stored))


class AsyncVocabularies:
    """Makes, reads and changes them, awaited. `AsyncClient.vocabularies`."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def create(
        self, words: Sequence[str] | Vocabulary, *, name: str = "", display_name: str = "", ttl_s: float = 0
    ) -> StoredVocabulary:
        """Keep words on the server; see `Vocabularies.create`."""
        return await self._calls.run(_create(words, name, display_name, ttl_s))

    async def get(self, name: str) -> StoredVocabulary:
        """One with its words; see `Vocabularies.get`."""
        return await self._calls.run(_get(name))

    async def list(self) -> tuple[StoredVocabulary, ...]:
        """All that the server keeps for this caller, without their words."""
        return await self._calls.run(_list())

    async def update(
        self,
        stored: StoredVocabulary | str,
        words: Sequence[str] | Vocabulary | None = None,
        *,
        display_name: str | None = None,
        ttl_s: float | None = None,
    ) -> StoredVocabulary:
        """Change one; see `Vocabularies.update`."""
        return await self._calls.run(_update(stored, words, display_name, ttl_s))

    async def delete(self, stored: StoredVocabulary | str) -> None:
        """Forget one; see `Vocabularies.delete`."""
        await self._calls.run(_delete(stored))


def _create(
    words: Sequence[str] | Vocabulary, name: str, display_name: str, ttl_s: float
) -> Dialogue[StoredVocabulary]:
    message = vocabulary_message(_vocabulary(words))
    message.ClearField("name")
    message.display_name = _text(display_name, "display_name")
    if ttl_s:
        message.ttl.CopyFrom(duration(ttl_s, "ttl_s"))
    vocabulary_id = _text(name, "name").removeprefix(_PREFIX)
    request = pb.CreateVocabularyRequest(vocabulary=message, vocabulary_id=vocabulary_id)
    reply = yield _ask("CreateVocabulary", request)
    return _read(reply.vocabulary)


def _get(name: str) -> Dialogue[StoredVocabulary]:
    reply = yield _ask("GetVocabulary", pb.GetVocabularyRequest(name=_text(name, "name")))
    return _read(reply.vocabulary)


def _list() -> Dialogue[tuple[StoredVocabulary, ...]]:
    found: list[StoredVocabulary] = []
    token = ""
    while True:
        reply = yield _ask("ListVocabularies", pb.ListVocabulariesRequest(page_token=token))
        found += map(_read, reply.vocabularies)
        token = reply.next_page_token
        if not token:
            return tuple(found)


def _update(
    stored: StoredVocabulary | str,
    words: Sequence[str] | Vocabulary | None,
    display_name: str | None,
    ttl_s: float | None,
) -> Dialogue[StoredVocabulary]:
    paths: list[str] = []
    message = vocabulary_pb2.Vocabulary()
    if words is not None:
        message = vocabulary_message(_vocabulary(words))
        paths += _WORDS
    if display_name is not None:
        message.display_name = _text(display_name, "display_name")
        paths.append("display_name")
    if ttl_s is not None:
        message.ttl.CopyFrom(duration(ttl_s, "ttl_s"))
        paths.append("ttl")
    message.name, message.etag = _identity(stored)
    request = pb.UpdateVocabularyRequest(vocabulary=message)
    request.update_mask.paths.extend(paths)
    reply = yield _ask("UpdateVocabulary", request)
    return _read(reply.vocabulary)


def _delete(stored: StoredVocabulary | str) -> Dialogue[None]:
    name, etag = _identity(stored)
    yield _ask("DeleteVocabulary", pb.DeleteVocabularyRequest(name=name, etag=etag))


def _identity(stored: StoredVocabulary | str) -> tuple[str, str]:
    """Name and etag, if that is known."""
    if isinstance(stored, StoredVocabulary):
        return stored.name, stored.etag
    return _text(stored, "name"), ""


def _text(value: str, field: str) -> str:
    """Words that go on the wire.

    Raises:
        InvalidParameter: They are no string.
    """
    if not isinstance(value, str):
        raise InvalidParameter(f"{field} is no text", field=field, expected="a string", got=repr(value))
    return value


# `Any`: a request of whatever method.
def _ask(method: str, request: Any) -> Ask:
    return Ask(method, request, "vocabularies")


def _vocabulary(words: Sequence[str] | Vocabulary) -> Vocabulary:
    return words if isinstance(words, Vocabulary) else Vocabulary.from_words(words)


def _read(message: vocabulary_pb2.Vocabulary) -> StoredVocabulary:
    return StoredVocabulary(
        name=message.name,
        display_name=message.display_name,
        etag=message.etag,
        content_hash=message.content_hash,
        ttl_s=message.ttl.ToNanoseconds() / 1e9,
        words=read_vocabulary(message) if message.classes else None,
    )
