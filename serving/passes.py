"""A batch of images through their backbone and heads, and what to do when that fails.

A batch that fails is tried in halves, so that an image that cannot be looked at fails alone, and a batch too
large for the device's memory is looked at in parts. A device that is lost, or has no memory left for the
smallest image, is told of: nothing it answers can be trusted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from serving.batch_caps import BatchCaps
from serving.faults import explain, is_fatal, ran_out_of_memory
from serving.jobs import Done, Job
from serving.model_jobs import ImageJob, Seen
from serving.models import ServedModel, ServedScene

__all__ = ["Counters", "Passes"]

_FAILURES_BEFORE_PROBE = 4
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Counters:
    """What the model's thread has done so far."""

    passes: int = 0
    images: int = 0
    questions: int = 0
    out_of_memory: int = 0


class Passes:
    """Looks at batches, on the model's thread.

    Args:
        counters: What to count in.
        caps: Batches that have been too large.
        looked_at: Told of each image that was looked at.
        lose_device: Told, with the error, that the device is lost; gives what its callers are told.
    """

    def __init__(
        self,
        counters: Counters,
        caps: BatchCaps,
        *,
        looked_at: Callable[[ImageJob, Done[Seen]], None],
        lose_device: Callable[[Exception], Exception],
    ) -> None:
        self._counters = counters
        self._caps = caps
        self._looked_at = looked_at
        self._lose_device = lose_device
        self._failures = 0  # passes without memory, in a row

    def look(self, batch: Sequence[ImageJob]) -> None:
        """One pass of the backbone and then the heads; if it fails, each half on its own."""
        started = time.monotonic()
        try:
            seen = self._seen(batch)
        except Exception as error:
            if len(batch) == 1 or is_fatal(error):
                for job in batch:
                    self.fail(job, error)
                return
            if ran_out_of_memory(error):
                self._counters.out_of_memory += 1
                self._caps.failed(batch[0].key, len(batch))
            _log.warning("a batch of %d failed (%s); it is tried in halves", len(batch), error)
        else:
            self._failures = 0
            self._caps.went_well(batch[0].key, len(batch))
            self._counters.images += len(batch)
            for job, value in zip(batch, seen, strict=True):
                self._looked_at(job, job.done(value, started, len(batch)))
            return
        # Outside of the handler: the exception would keep the batch's memory alive while we try again.
        half = len(batch) // 2
        self.look(batch[:half])
        self.look(batch[half:])

    def fail(self, job: Job, error: Exception) -> None:
        """Tell who waits; and of the device, if it is lost."""
        if is_fatal(error):
            job.outcome.refuse(self._lose_device(error))
            return
        job.outcome.refuse(explain(error))
        if ran_out_of_memory(error) and isinstance(job, ImageJob):
            self._counters.out_of_memory += 1
            self._failures += 1
            if self._failures >= _FAILURES_BEFORE_PROBE:
                self._failures = 0
                self._probe(job.models[0])

    def _seen(self, batch: Sequence[ImageJob]) -> list[Seen]:
        self._counters.passes += 1
        looks = batch[0].models[0].look([job.picture for job in batch])
        scenes: list[dict[int, ServedScene]] = [{} for _ in batch]
        for model in {id(m): m for job in batch for m in job.models}.values():
            asked = [i for i, job in enumerate(batch) if any(m is model for m in job.models)]
            for i, scene in zip(asked, model.scenes([looks[i] for i in asked]), strict=True):
                scenes[i][id(model)] = scene
        return [
            Seen(
                scenes=tuple(found[id(model)] for model in job.models),
                look=look.alone() if job.keep_look else None,
            )
            for job, look, found in zip(batch, looks, scenes, strict=True)
        ]

    def _probe(self, model: ServedModel) -> None:
        """After images in a row without memory: were they too large, or does nothing fit any more?"""
        try:
            model.look([model.prepare(np.zeros((64, 64, 3), np.uint8))])
        except Exception as error:
            if ran_out_of_memory(error) or is_fatal(error):
                self._lose_device(error)
