"""The work of the model's thread: an image to look at, a question to ask, a vocabulary to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from serving.jobs import Done, Job, Terms
from serving.models import ServedLook, ServedModel, ServedPicture, ServedScene

__all__ = ["Answered", "ImageJob", "LessonJob", "QuestionJob", "Seen", "image_job"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An image that was looked at.

    Attributes:
        scenes: What each of the models it was meant for made of it.
        look: What the backbone saw, if it shall be kept for other models.
    """

    scenes: tuple[ServedScene, ...]
    look: ServedLook | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Generic[T]):
    """An image that was looked at, and what its question was answered; `asked_ms` is what that took."""

    seen: Seen
    value: T
    asked_ms: float


@dataclass(slots=True, kw_only=True, eq=False)
class ImageJob(Job):
    """An image for models of one trunk.

    Attributes:
        models: Whom it is for.
        picture: Their network input.
        key: What images of one batch have in common: trunk and network size.
        keep_look: Whether to hand out what the backbone saw.
        question: What to ask as soon as it was looked at.
    """

    models: Sequence[ServedModel]
    picture: ServedPicture
    key: tuple[str, tuple[int, int]]
    keep_look: bool
    question: Callable[[Seen], object] | None = None

    def start(self) -> bool:
        """As any job's; but who brought a question may leave until that is asked."""
        if self.question is None:
            return Job.start(self)
        return not self.outcome.cancelled and self.in_time()


@dataclass(slots=True, kw_only=True, eq=False)
class QuestionJob(Job):
    """A question; `looked` is what came of the image that brought it, if one did."""

    ask: Callable[[], object]
    looked: Done[Seen] | None = None

    def answered(self, value: object, started: float) -> Done[Any]:
        """What came of it, and of the image that brought it."""
        done, looked = self.done(value, started), self.looked
        if looked is None:
            return done
        return Done(
            value=Answered(seen=looked.value, value=value, asked_ms=done.run_ms),
            queue_ms=looked.queue_ms + done.queue_ms,
            run_ms=looked.run_ms,
            batch_size=looked.batch_size,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class LessonJob(Job):
    """Words to encode: each step tells how many are left."""

    steps: Iterator[int]
    started: bool = False


def image_job(
    models: Sequence[ServedModel],
    picture: ServedPicture,
    terms: Terms,
    *,
    keep_look: bool,
    question: Callable[[Seen], object] | None = None,
) -> ImageJob:
    """The job of an image; it costs the pixels of its network input."""
    size = picture.geometry.padded
    return ImageJob(
        models=models,
        picture=picture,
        key=(models[0].trunk, size),
        keep_look=keep_look,
        question=question,
        terms=terms,
        cost=size[0] * size[1],
    )
