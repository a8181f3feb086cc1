"""Several processes that share the images of a run."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from eval.running.job import Job
from eval.running.share import Share, open_job, work
from ovperception.errors import OVPError, ResourceExhausted

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

__all__ = ["work_in_processes"]

_POLL_S = 0.5
Message = OVPError | str | None


def work_in_processes(jobs: Sequence[Job], count: int, session: str, on_image: Callable[[], object]) -> None:
    """Divides the images among new processes, each with a model or a connection of its own.

    Args:
        jobs: as for `work`.
        count: how many processes.
        session: name of the session.
        on_image: called in this process after each image.

    Raises:
        OVPError: of the first process that failed; the others are ended, what they did is on the disk.
        ResourceExhausted: a process was killed.
    """
    # "spawn": a forked OpenCV or torch may wait for threads that were not copied
    context = multiprocessing.get_context("spawn")
    news: Queue[Message] = context.Queue()
    processes: list[BaseProcess] = []
    for rank in range(count):
        share = Share(rank, count)
        # Not a daemon: its own libraries may start processes.
        processes.append(
            context.Process(target=_process, args=(list(jobs), share, session, news), name=f"share-{rank}")
        )
    try:
        for process in processes:
            process.start()
        _listen(processes, news, on_image)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join()
        news.close()


def _listen(processes: Sequence[BaseProcess], news: Queue[Message], on_image: Callable[[], object]) -> None:
    while True:
        running = any(process.is_alive() for process in processes)
        try:
            message = news.get(timeout=_POLL_S)
        except queue.Empty:
            if running:
                _check_alive(processes)
                continue
            _check_alive(processes)
            return
        if isinstance(message, OVPError):
            raise message
        if isinstance(message, str):
            raise RuntimeError(message)
        on_image()


def _check_alive(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        if process.exitcode:
            raise ResourceExhausted(
                "A process of the evaluation was killed, most likely for want of memory",
                got=f"exit status {process.exitcode} of {process.name}",
                mend="Ask for fewer --workers; the same command goes on where it was",
            )


def _process(jobs: list[Job], share: Share, session: str, news: Queue[Message]) -> None:
    from eval.running.run import asker_of

    try:
        _divide_cores(share.world)
        opened = [open_job(job) for job in jobs]
        asker = asker_of(_on_device(jobs[0], share))
        try:
            work(opened, asker, share, session, lambda: news.put(None))
        finally:
            asker.close()
    except OVPError as error:
        news.put(error)
    except Exception as error:  # the parent shows it; a trace on a worker's stderr would be lost
        news.put(f"{type(error).__name__}: {error}")


def _divide_cores(world: int) -> None:
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))


def _on_device(job: Job, share: Share) -> Job:
    """GPUs in turn."""
    import dataclasses

    if job.device != "cuda":
        return job
    import torch

    return dataclasses.replace(job, device=f"cuda:{share.rank % max(torch.cuda.device_count(), 1)}")
