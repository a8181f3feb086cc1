"""Several questions about an image in one pass, for one image, a batch of them, or a stream of frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc.status_pb2 import Status

from ovperception.errors import InvalidParameter, OVPError
from ovperception.v1 import perceive_pb2 as pb
from ovperception.v1.image_pb2 import Image
from ovperception.v1.vocabulary_pb2 import VocabularySpec
from ovperception.wire_errors import status_of
from serving.call import Call
from serving.engine import Engine
from serving.models import ServedModel
from serving.presence import CallCancelled
from serving.questions import Question, questions
from serving.request_size import request_bytes
from serving.security import caller
from serving.words import AskedWords, WordReader

__all__ = ["Asked", "Perceiver", "answers", "failure"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked about an image, checked.

    Attributes:
        model: Whose scene may be kept, and who answers unless a question says otherwise.
        words: The words; None if no question needs any.
        questions: What is asked.
    """

    model: ServedModel
    words: AskedWords | None
    questions: tuple[Question[Any], ...]


class Perceiver:
    """Answers batches, and checks what streams ask.

    Args:
        engine: Runs the questions.
        words: Reads their words.
    """

    def __init__(self, engine: Engine, words: WordReader) -> None:
        self._engine = engine
        self._words = words

    def asked(
        self, model: str, vocabulary: VocabularySpec, outputs: Sequence[pb.PerceiveOutput], owner: str
    ) -> Asked:
        """Check what is asked.

        Raises:
            OVPError: It cannot be asked.
        """
        served = self._engine.models.get(model)
        words = self._words.read(vocabulary, owner) if vocabulary.WhichOneof("value") else None
        found = questions(outputs, served, words, self._engine)
        return Asked(model=served, words=words, questions=found)

    def batch(
        self, request: pb.BatchPerceiveRequest, context: grpc.ServicerContext
    ) -> pb.BatchPerceiveResponse:
        """Answer a batch; an image that fails, fails alone.

        Raises:
            OVPError: The batch as a whole cannot be answered.
        """
        limit = self._engine.config.max_batch_items
        if not 0 < len(request.items) <= limit:
            raise InvalidParameter(
                "The number of images is out of its range",
                field="items",
                expected=f"1 to {limit}",
                got=len(request.items),
            )
        owner = caller().name
        shared = self._shared(request, owner)
        share = request_bytes() // len(request.items)

        def one(index: int) -> pb.BatchItemResult:
            item, request_id = request.items[index], f"{request.request_id}/{index}"
            try:
                own = bool(item.outputs) or item.HasField("vocabulary")
                asked = shared if shared and not own else self._own(request, item, owner)
                with self._engine.call(asked.model, request_id, share, context) as call:
                    return pb.BatchItemResult(result=answers(call, asked, item.image, keep=item.keep_image))
            except CallCancelled:
                raise
            except Exception as error:
                return pb.BatchItemResult(error=failure(error, f"items[{index}]", request_id))

        threads = min(len(request.items), 2 * self._engine.config.max_batch)
        with ThreadPoolExecutor(threads, thread_name_prefix="ovperception-item") as pool:
            # Each in a context of its own that knows the caller.
            work = [pool.submit(copy_context().run, one, index) for index in range(len(request.items))]
            results = [future.result() for future in work]
        return pb.BatchPerceiveResponse(request_id=request.request_id, items=results)

    def _shared(self, request: pb.BatchPerceiveRequest, owner: str) -> Asked | None:
        """What all images are asked that bring nothing of their own; what is wrong with it is told once."""
        if all(item.outputs or item.HasField("vocabulary") for item in request.items):
            return None
        return self.asked(request.model, request.vocabulary, request.outputs, owner)

    def _own(self, request: pb.BatchPerceiveRequest, item: pb.BatchItem, owner: str) -> Asked:
        spec = item.vocabulary if item.HasField("vocabulary") else request.vocabulary
        return self.asked(request.model, spec, item.outputs or request.outputs, owner)


def answers(call: Call, asked: Asked, image: Image, *, keep: bool = False) -> pb.PerceiveResult:
    """All answers about one image, in one pass through each backbone."""
    result = pb.PerceiveResult()
    # An image that is kept is kept for the model of the request, if that is asked at all.
    order = sorted(range(len(asked.questions)), key=lambda i: asked.questions[i].model is not asked.model)
    drafts = call.ask_about(image, [asked.questions[i] for i in order], keep=keep)
    finish = dict(zip(order, drafts, strict=True))
    truncated = False
    for index, question in enumerate(asked.questions):
        answer, cut = question.told(call, finish[index])
        result.answers.append(answer)
        truncated |= cut
    words = asked.words
    result.info.CopyFrom(call.info(words.info() if words else None, truncated=truncated))
    if words is not None:
        result.MergeFromString(words.class_list())
    return result


def failure(error: Exception, place: str, request_id: str) -> Status:
    """The status of one image or frame that failed; `place` goes before the field it names."""
    if not isinstance(error, OVPError):
        _log.error("%s failed", request_id, exc_info=error)
        error = OVPError("The server failed on this request; its log says why")
    elif place and error.field:
        error.field = f"{place}.{error.field}"
    return status_of(error, request_id)
