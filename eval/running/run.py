"""Runs evaluations, in one process or several, from wherever an earlier run was stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.outcome import Outcome
from eval.running.asking import Asker, Identity, LocalAsker, RemoteAsker, load_model
from eval.running.ending import end
from eval.running.job import Job
from eval.running.journal import locked, unwritable
from eval.running.processes import work_in_processes
from eval.running.share import RECORDS, Opened, Share, check_task, count_of, finished, open_job, work
from ovperception.datasets.samples import samples
from ovperception.datasets.scene_sets import DrawnScenes
from ovperception.errors import Conflict, InvalidParameter, MissingFile
from ovperception.images import write_file

__all__ = ["Plan", "asker_of", "keep_plan", "plan_of", "prepare", "run", "torchrun_share"]

_PLAN = "plan.json"
_POLL_S = 0.5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is about to be done.

    Attributes:
        images: that are judged.
        done: of them before this session.
    """

    images: int
    done: int


def asker_of(job: Job) -> Asker:
    """The model of a job, loaded or connected to."""
    if job.server:
        return RemoteAsker(job.server, job.model)
    return LocalAsker(load_model(job.model, job.device), job)


def torchrun_share() -> Share | None:
    """The share of this process if torchrun started it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(name in os.environ for name in names):
        return None
    return Share(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def run(
    jobs: Sequence[Job],
    *,
    asker: Asker | None = None,
    alone: bool = False,
    on_plan: Callable[[Plan], object] = lambda plan: None,
    on_image: Callable[[], object] = lambda: None,
) -> list[Outcome]:
    """Evaluates; what an earlier run of the same folder did is not done again.

    Args:
        jobs: on one data set, at one resolution, of one model: each picture is looked at once for all.
        asker: a model that is loaded already; several processes load their own.
        alone: do it all in this process, even under torchrun, as a training's first process does.
        on_plan: told how much there is to do, before anything is done.
        on_image: called after each image that was done now.

    Returns:
        One outcome a job; under torchrun those of the first process only, and nothing elsewhere.

    Raises:
        OVPError: of the first thing that goes wrong. What was done is on the disk, and the same call goes
            on from there.
    """
    _check_together(jobs)
    opened = [open_job(job) for job in jobs]
    _check_pictures(opened[0])
    for job in jobs:
        prepare(job.out)
    share = None if alone else torchrun_share()
    with contextlib.ExitStack() as stack:
        for job in jobs:
            stack.enter_context(locked(job.out / RECORDS, shared=share is not None))
        if asker is None:
            asker = asker_of(_on_own_device(jobs[0], share))
            stack.callback(asker.close)
        identity = asker.identity
        for one in opened:
            check_task(one, asker)
            keep_plan(one.job.out / RECORDS, plan_of(one, identity))
        done = [finished(one.job.out / RECORDS, one.job.out, one) for one in opened]
        counts = [count_of(one) for one in opened]
        left = sum(
            any(i < n and i not in d for n, d in zip(counts, done, strict=True)) for i in range(max(counts))
        )
        on_plan(Plan(images=max(counts), done=max(counts) - left))
        _work(opened, asker, share, left, on_image)
        if share is not None and share.rank:
            return []
        _wait_for_all(opened)
        return [end(one, identity) for one in opened]


def _work(
    opened: Sequence[Opened], asker: Asker, share: Share | None, left: int, on_image: Callable[[], object]
) -> None:
    session = f"{time.time_ns():020d}"
    workers = min(opened[0].job.workers, left)
    if share is not None:
        work(opened, asker, share, f"{session}-{share.rank}", on_image)
    elif workers > 1:
        work_in_processes([one.job for one in opened], workers, session, on_image)
    elif left:
        work(opened, asker, Share(), session, on_image)


def _on_own_device(job: Job, share: Share | None) -> Job:
    """Each process of a torchrun has the GPU of its rank on the machine."""
    if share is None or job.device != "cuda":
        return job
    return dataclasses.replace(job, device=f"cuda:{os.environ['LOCAL_RANK']}")


def _check_together(jobs: Sequence[Job]) -> None:
    def shared(job: Job) -> tuple[object, ...]:
        window = job.protocol.window if job.resolution == "protocol" else None
        size = job.protocol.resolution if job.resolution == "protocol" else None
        where = (job.data, job.root, job.split, job.limit, job.first, job.size)
        return (job.model, job.server, job.device, *where, size, window, job.views)

    if not jobs or any(shared(job) != shared(jobs[0]) for job in jobs):
        raise InvalidParameter(
            "These evaluations cannot share their pictures",
            field="jobs",
            expected="one model, data, resolution and views",
        )
    if len({job.out.absolute() for job in jobs}) < len(jobs):
        raise InvalidParameter("Two evaluations write into one folder", field="out")


def prepare(out: Path) -> None:
    """Makes sure, before hours of work, that results can be written."""
    trial = out / RECORDS / f".trial.{os.getpid()}"
    try:
        trial.parent.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"\0" * 4096)
        trial.unlink()
    except OSError as error:
        raise unwritable(out, error) from error


def _check_pictures(opened: Opened) -> None:
    """Refuses to begin where pictures are missing: the 4,999th would be found out after hours."""
    if isinstance(opened.dataset, DrawnScenes):
        return
    paths = [sample.path for sample in samples(opened.dataset, count=count_of(opened))]
    absent = [path for path in paths if path is not None and not path.is_file()]
    if absent:
        raise MissingFile(
            f"{len(absent)} of {len(paths)} pictures of {opened.dataset.name} are missing",
            field="root",
            expected=str(absent[0]),
            got=f"{', '.join(path.name for path in absent[:5])}",
            mend="Unpack them there, or name the folder they are in as --root",
        )


def keep_plan(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Notes what a folder of records is for, or checks that it is for this.

    Raises:
        Conflict: it holds results of something else.
    """
    path = folder / _PLAN
    if not path.is_file():
        write_file(path, json.dumps(wanted, indent=1).encode())
        return
    try:
        held = json.loads(path.read_bytes())
    except ValueError:
        held = None
    held = held if isinstance(held, dict) else {}
    other = [name for name in wanted if held.get(name) != wanted[name]]
    if other:
        raise Conflict(
            "This folder holds an evaluation of something else",
            field="out",
            expected="; ".join(f"{name} {held.get(name, 'unknown')}" for name in other),
            got="; ".join(f"{name} {wanted[name]}" for name in other),
            mend=f"Name another folder, or remove {path.parent} to begin anew",
        )


def plan_of(opened: Opened, identity: Identity) -> dict[str, Any]:
    """Everything that must be the same for records to go together; not how many, where or by how many."""
    job = opened.job
    rules = hashlib.sha256(repr(job.protocol).encode()).hexdigest()[:16]
    return {
        "protocol": f"{job.protocol.name} {rules}",
        "data": opened.dataset.name,
        "scenes": f"from {job.first}, {job.size} pixels" if job.data == "scenes" else "",
        "model": f"{identity.name} {identity.version} {identity.digest[:16]}",
        "words": opened.question.vocabulary.content_hash[:16],
        "resolution": job.resolution,
        "augmentation": identity.augmentation,
    }


def _wait_for_all(opened: Sequence[Opened]) -> None:
    """Under torchrun the first process waits for the others' records; they end together or not at all."""
    for one in opened:
        folder, count = one.job.out / RECORDS, count_of(one)
        while len([i for i in finished(folder, one.job.out, one) if i < count]) < count:
            time.sleep(_POLL_S)
