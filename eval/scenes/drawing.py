"""Scenes drawn a few ahead by other processes, while the model is asked about the one before."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2

from ovperception.datasets.scene_sets import DrawnScenes
from ovperception.datasets.scenes import SceneSample, scene
from ovperception.errors import ResourceExhausted

__all__ = ["drawn_ahead"]


@contextlib.contextmanager
def drawn_ahead(scenes: DrawnScenes, workers: int) -> Iterator[DrawnScenes]:
    """The same scenes, drawn by so many processes; with one, by this process when they are asked for."""
    if workers == 1:
        yield scenes
        return
    # "spawn": a forked OpenCV or torch may wait for threads that were not copied
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,))
    try:
        yield _Ahead(scenes, pool, 2 * workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Ahead(DrawnScenes):
    """See `drawn_ahead`.

    Args:
        scenes: what is drawn.
        pool: who draws.
        ahead: how many beyond the one that is asked for; never all, they are large.
    """

    def __init__(self, scenes: DrawnScenes, pool: ProcessPoolExecutor, ahead: int) -> None:
        self.__dict__.update(vars(scenes))
        self._pool = pool
        self._ahead = ahead
        self._futures: dict[int, Future[SceneSample]] = {}

    def _drawn(self, number: int) -> SceneSample:
        end = min(number + self._ahead + 1, self._first + len(self))
        self._futures = {n: future for n, future in self._futures.items() if n >= number}
        for n in range(number, end):
            if n not in self._futures:
                self._futures[n] = self._pool.submit(scene, self._split, n, (self._side, self._side))
        try:
            return self._futures[number].result()
        except BrokenProcessPool as error:
            raise ResourceExhausted(
                "A drawing process was killed, most likely for want of memory", mend="Ask for fewer workers"
            ) from error
