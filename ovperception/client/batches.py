"""Several outputs of each of several pictures in one call."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ovperception.client import scaling
from ovperception.client.dialogue import Ask, Dialogue, server_info
from ovperception.client.handles import Handles, NamedWords, Words
from ovperception.client.perceptions import Perception, read_failure, read_perception
from ovperception.errors import InvalidImage, OVPError, VocabularyNotFound
from ovperception.v1 import image_pb2
from ovperception.v1 import perceive_pb2 as pb

__all__ = ["Batches", "is_too_large"]


class Batches:
    """What a client asks of batches.

    Args:
        model: Name of the model to ask; empty means the server's first.
        handles: The vocabularies the server keeps.
        words: The classes; None where no output needs any.
        outputs: What to be told about each picture.
    """

    def __init__(
        self, model: str, handles: Handles, words: Words | None, outputs: Sequence[pb.PerceiveOutput]
    ) -> None:
        self._model = model
        self._handles = handles
        self._words = words
        self._outputs = outputs

    def perceive(
        self, pictures: Sequence[image_pb2.Image], max_pixels: int | None
    ) -> Dialogue[list[Perception | OVPError]]:
        """The answers about each picture; one that fails, fails alone.

        Pictures of more than `max_pixels` are sent smaller, and those that the server refuses for their size.
        """
        found = yield from self._perceive(pictures, max_pixels)
        large = [index for index, answer in enumerate(found) if is_too_large(answer)]
        if large:
            info = yield from server_info()
            again = yield from self._perceive([pictures[index] for index in large], info.max_pixels)
            for index, answer in zip(large, again, strict=True):
                found[index] = answer
        return found

    def _perceive(
        self, pictures: Sequence[image_pb2.Image], max_pixels: int | None
    ) -> Dialogue[list[Perception | OVPError]]:
        fitting = [scaling.fit(picture, max_pixels) for picture in pictures]
        items = [pb.BatchItem(image=picture) for picture, _ in fitting]
        request = pb.BatchPerceiveRequest(model=self._model, outputs=self._outputs, items=items)
        started = time.perf_counter()
        reply, named = yield from self._ask(request)
        spent_ms = 1e3 * (time.perf_counter() - started)
        found: list[Perception | OVPError] = []
        for item, (_, size) in zip(reply.items, fitting, strict=True):
            if item.WhichOneof("outcome") == "error":
                found.append(read_failure(item.error))
                continue
            if named is not None:
                self._handles.learn(named.key, item.result.info.vocabulary.handle)
            answer = read_perception(item.result, spent_ms)
            found.append(answer if size is None else answer.restored(size))
        return found

    def _ask(
        self, request: pb.BatchPerceiveRequest
    ) -> Dialogue[tuple[pb.BatchPerceiveResponse, NamedWords | None]]:
        """The reply, and how the words were named; words that the server has forgotten are sent again."""
        while True:
            named = None if self._words is None else self._handles.name(self._words)
            if named is not None:
                request.vocabulary.CopyFrom(named.spec)
            try:
                return (yield Ask("BatchPerceive", request)), named
            except VocabularyNotFound:
                if named is None or not named.by_handle:
                    raise
                self._handles.forget(named.key)


def is_too_large(found: object) -> bool:
    """Whether a picture was refused for its size."""
    return isinstance(found, InvalidImage) and "too large" in found.what
