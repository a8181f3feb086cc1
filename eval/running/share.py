"""A process' share of the images: looked at one by one, judged, and recorded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from eval.protocols import AP
from eval.running.asking import Asker, Looked, ask, picture_of
from eval.running.job import Job, open_data
from eval.running.journal import Journal, Record, done_indices
from eval.running.judging import judge_of
from eval.running.question import Question, question_of
from eval.running.truth_file import annotation_file
from ovperception.datasets.samples import Dataset, Sample
from ovperception.errors import Unsupported
from ovperception.vocabulary import Vocabulary

__all__ = [
    "RECORDS",
    "ImageTask",
    "Opened",
    "Share",
    "Task",
    "check_task",
    "count_of",
    "open_job",
    "work",
    "work_on",
]

RECORDS = "run"
"""Folder of the records, under OUT."""


@dataclass(frozen=True, slots=True)
class Share:
    """Every `world`-th image from `rank` on."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A job with its data set and its question."""

    job: Job
    dataset: Dataset
    question: Question


def open_job(job: Job) -> Opened:
    """Opens the data set; raises as `open_data` and `question_of`."""
    dataset = open_data(job)
    return Opened(job=job, dataset=dataset, question=question_of(job.protocol, dataset))


def count_of(opened: Opened) -> int:
    """How many images are judged."""
    return min(len(opened.dataset), opened.job.limit or len(opened.dataset))


def check_task(opened: Opened, asker: Asker) -> None:
    """Refuses a model that cannot be asked.

    Raises:
        Unsupported: it has no head for the task.
    """
    identity, task = asker.identity, opened.job.protocol.task
    if task not in identity.tasks:
        raise Unsupported(
            f"Model {identity.name!r} cannot answer {task!r}, which {opened.job.protocol.name} asks",
            field="model",
            expected=f"a model that can {task}",
            got=", ".join(sorted(identity.tasks)),
            mend="`ovp models` tells what each can; `ovp eval --protocols` what each asks",
        )


class ImageTask(Protocol):
    """Something that is done with every image and is recorded."""

    @property
    def count(self) -> int:
        """How many images."""
        ...

    @property
    def done(self) -> set[int]:
        """Those of them that need not be done again."""
        ...

    @property
    def words(self) -> Vocabulary | None:
        """What the model is to learn first."""
        ...

    @property
    def masks(self) -> bool | None:
        """Whether masks of detections are wanted; None where the model's look is of no use."""
        ...

    def record(self, index: int, sample: Sample, looked: Looked, encode_s: float, *, masks: bool) -> None:
        """Asks about one image and notes what came of it."""
        ...


def work(
    opened: Sequence[Opened],
    asker: Asker,
    share: Share,
    session: str,
    on_image: Callable[[], object] = lambda: None,
) -> None:
    """Does what is not done yet of a share.

    Args:
        opened: jobs on one data set at one resolution: each picture is looked at once for all of them.
        asker: the model.
        share: which images.
        session: name of the session.
        on_image: called after each image that was done now.

    Raises:
        OVPError: the first thing that goes wrong; what was done before is on the disk.
    """
    with contextlib.ExitStack() as stack:
        tasks = [stack.enter_context(Task(one, session, share)) for one in opened]
        work_on(opened[0], tasks, asker, share, on_image)


def work_on(
    opened: Opened,
    tasks: Sequence[ImageTask],
    asker: Asker,
    share: Share = Share(),
    on_image: Callable[[], object] = lambda: None,
) -> None:
    """Does the tasks of a share, each picture looked at once for all of them.

    Args:
        opened: whose pictures, as its job presents them.
        tasks: what is done with each.
        asker: the model.
        share: which images.
        on_image: called after each image that was done now.
    """
    masks = any(task.masks for task in tasks)
    learnt = False
    for index in range(share.rank, max(task.count for task in tasks), share.world):
        waiting = [task for task in tasks if index < task.count and index not in task.done]
        if not waiting:
            continue
        if not learnt:
            _learn(waiting, asker)
            learnt = True
        sample = opened.dataset.sample(index)
        begun = time.perf_counter()
        picture = picture_of(sample, opened.job)
        loaded = time.perf_counter()
        seen = any(task.masks is not None for task in waiting)
        looked = asker.look(picture) if seen else Looked(None, picture, model=None, timing={})
        looked.timing["load"] = 1e3 * (loaded - begun)
        encode_s = time.perf_counter() - loaded
        for task in waiting:
            task.record(index, sample, looked, encode_s, masks=masks)
        on_image()


def _learn(tasks: Sequence[ImageTask], asker: Asker) -> None:
    asked = [task.words for task in tasks if task.words is not None]
    for words in {words.content_hash: words for words in asked}.values():
        asker.learn(words)


class Task:
    """One job of a share; a context manager, which closes its journal."""

    def __init__(self, opened: Opened, session: str, share: Share) -> None:
        folder = opened.job.out / RECORDS
        self.opened = opened
        self.count = count_of(opened)
        self.done = finished(folder, opened.job.out, opened)
        self.words = opened.question.vocabulary
        keep = isinstance(opened.job.protocol.metric, AP) and annotation_file(opened.dataset) is None
        self._judge = judge_of(opened.job, opened.dataset, opened.question, keep_truth=keep)
        self.masks = self._judge.masks
        self._journal = Journal(folder, session, share.rank)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.__exit__()

    def record(self, index: int, sample: Sample, looked: Looked, encode_s: float, *, masks: bool) -> None:
        """Asks about one image and notes what came of it."""
        begun = time.perf_counter()
        answer = ask(looked, self.opened.job, self.opened.question, sample, masks=masks)
        asked = time.perf_counter()
        judged: Record = self._judge.record(sample, answer)
        spent = time.perf_counter() - asked
        self._journal.append(
            {
                "i": index,
                "id": sample.image_id,
                "name": sample.file_name,
                "path": str(sample.path.absolute()) if sample.path else "",
                "at": round(time.time(), 3),
                "asked_s": round(encode_s + asked - begun, 6),
                "judged_s": round(spent, 6),
                "timing": {name: round(ms, 3) for name, ms in looked.timing.items()},
            }
            | judged
        )


def finished(folder: Path, out: Path, opened: Opened) -> set[int]:
    """Images that need not be done again; a map or text that was lost makes its image undone."""
    from eval.running.journal import read_records
    from eval.running.prediction_files import FOLDER

    metric = opened.job.protocol.metric
    if isinstance(metric, AP) and metric.kind != "cityscapes":
        return done_indices(folder)
    done = set()
    for _, record in read_records(folder, frozenset({"i", "file"})):
        path = out / FOLDER / record["file"] if "file" in record else None
        # A power cut may leave a map without a byte; a text without one says that nothing was found.
        if path is not None and path.is_file() and (isinstance(metric, AP) or path.stat().st_size):
            done.add(int(record["i"]))
    return done
