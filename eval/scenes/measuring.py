"""Judges a model on the procedural world: every question, every scene, one look at each.

The model is asked for all 659 things and 8 stuffs at once (the generalised setting); base and novel are parts
of one run. Heads were trained on boxes and masks of base classes only. Detections and maps are judged as by
their protocols, each into a folder of its own, and naming goes beside them.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from eval.outcome import Outcome
from eval.outcome_files import write_outcome
from eval.protocols import protocol
from eval.running.asking import LocalAsker, Looked, ask
from eval.running.ending import finish
from eval.running.job import Job
from eval.running.journal import locked
from eval.running.run import Plan, keep_plan, plan_of, prepare
from eval.running.share import RECORDS, ImageTask, Opened, Share, Task, open_job, work_on
from eval.scenes.drawing import drawn_ahead
from eval.scenes.naming_task import NamingTask
from eval.scenes.settings import MEASURES, Measure, Metrics, SceneEvaluation
from eval.scenes.summary import Measured, summary
from ovperception.datasets.scene_sets import DrawnScenes
from ovperception.errors import Unsupported
from ovperception.head import Task as ModelTask
from ovperception.structures import Detections
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovperception.model import Model

__all__ = ["evaluate_scenes", "measure_scenes"]

_TASKS: dict[Measure, ModelTask] = {"box": "detect", "semantic": "semantic", "panoptic": "panoptic"}
_PROTOCOLS: dict[Measure, str] = {
    "box": "scenes_coco_mask",
    "semantic": "scenes_semantic",
    "panoptic": "scenes_panoptic",
}
_BOXES = "scenes_coco_box"
_FOLDERS: dict[Measure, str] = {"box": "detection", "semantic": "semantic", "panoptic": "panoptic"}
_NAMING: frozenset[Measure] = frozenset({"crop", "region"})


def evaluate_scenes(
    model: Model, settings: SceneEvaluation | None = None, *, on_image: Callable[[], object] = lambda: None
) -> Metrics:
    """Measure a model and keep nothing but the numbers.

    Args:
        model: to be judged.
        settings: on what; the defaults are the numbers that model cards tell.
        on_image: called after each scene.

    Returns:
        Name -> number. Qualities are 0-1, ``timing/...`` are medians in milliseconds. None where nothing can
        be said: the model cannot answer, or no class of the group occurs. What was not to be measured is
        left out.

    Raises:
        Unsupported: a measure was asked for by name that the model cannot answer.
        ResourceExhausted: a drawing process was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = measure_scenes(model, settings or SceneEvaluation(), Path(folder), on_image=on_image)
    return dict(found.metrics)


def measure_scenes(
    model: Model,
    settings: SceneEvaluation,
    out: Path,
    *,
    on_plan: Callable[[Plan], object] = lambda plan: None,
    on_image: Callable[[], object] = lambda: None,
) -> Outcome:
    """Measure a model and write everything; what an earlier run of the same folder did is not done again.

    Args:
        model: to be judged.
        settings: on what.
        out: folder of the outcome; detections and maps have outcomes of their own in folders inside.
        on_plan: told how much there is to do, before anything is done.
        on_image: called after each scene that was done now.

    Raises:
        Unsupported: a measure was asked for by name that the model cannot answer.
        Conflict: the folder holds results of something else.
        ResourceExhausted: a drawing process was killed, or the disk is full.
    """
    can = _able(model, settings)
    named = sorted(can & _NAMING)  # records of crops alone are of no use to a run that names boxes as well
    naming = open_job(_job(model, settings, _BOXES, out / "_".join(("naming", *named))))
    asker = _Eyes(model, naming.job)
    with contextlib.ExitStack() as stack:
        dataset = stack.enter_context(drawn_ahead(cast("DrawnScenes", naming.dataset), settings.workers))
        naming = replace(naming, dataset=dataset)
        asker.learn(naming.question.vocabulary)
        opened = {m: _opened(model, settings, m, out, dataset) for m in _PROTOCOLS if m in can}
        if "box" in opened and not _makes_masks(asker, opened["box"]):
            job = replace(opened["box"].job, protocol=protocol(_BOXES))
            opened["box"] = replace(open_job(job), dataset=dataset)
        for one in opened.values():
            stack.enter_context(_claimed(one, asker))
        if named:
            stack.enter_context(_claimed(naming, asker, crops=settings.crops_per_class))
        session = f"{time.time_ns():020d}"
        namer: NamingTask | None = None
        with contextlib.ExitStack() as journals:
            tasks: list[ImageTask] = [
                journals.enter_context(Task(one, session, Share())) for one in opened.values()
            ]
            if named:
                namer = journals.enter_context(NamingTask(model, settings, naming, named, session))
                tasks.append(namer)
            left = sum(any(i not in task.done for task in tasks) for i in range(settings.images))
            on_plan(Plan(images=settings.images, done=settings.images - left))
            if tasks:
                work_on(naming, tasks, asker, on_image=on_image)
        measured = {m: Measured(*finish(one, asker.identity), one) for m, one in opened.items()}
    outcome = summary(settings, measured, namer, naming, asker.identity, asker.learnt_ms)
    write_outcome(outcome, out)
    return outcome


def _able(model: Model, settings: SceneEvaluation) -> set[Measure]:
    for measure in settings.only or ():
        if measure in _TASKS and _TASKS[measure] not in model.tasks:
            raise Unsupported(
                f"Model {model.name!r} cannot answer {_TASKS[measure]!r}",
                field="only",
                expected=" or ".join(m for m in MEASURES if m not in _TASKS or _TASKS[m] in model.tasks),
                got=measure,
            )
    return {m for m in settings.only or MEASURES if m not in _TASKS or _TASKS[m] in model.tasks}


def _job(model: Model, settings: SceneEvaluation, name: str, out: Path) -> Job:
    return Job(
        model=model.name,
        protocol=protocol(name),
        out=out,
        data="scenes",
        split=settings.split,
        limit=settings.images,
        first=settings.first,
        size=settings.size,
        part=settings.words,
    )


def _opened(
    model: Model, settings: SceneEvaluation, measure: Measure, out: Path, dataset: DrawnScenes
) -> Opened:
    job = _job(model, settings, _PROTOCOLS[measure], out / _FOLDERS[measure])
    return replace(open_job(job), dataset=dataset)


@contextlib.contextmanager
def _claimed(opened: Opened, asker: _Eyes, **settings: int) -> Iterator[None]:
    """Its folder is of this evaluation, and of no other process."""
    prepare(opened.job.out)
    folder = opened.job.out / RECORDS
    with locked(folder):
        keep_plan(folder, plan_of(opened, asker.identity) | settings)
        yield


def _makes_masks(asker: _Eyes, opened: Opened) -> bool:
    """Whether detections have masks; the first scene that is looked at for it is not looked at again."""
    sample = opened.dataset.sample(0)
    looked = asker.look(sample.image())
    asker.kept = looked
    found = cast("Detections", ask(looked, opened.job, opened.question, sample, masks=True))
    return found.masks is not None


class _Eyes(LocalAsker):
    """A model in this process, whose whole look is timed.

    Attributes:
        learnt_ms: milliseconds for the words; None before.
        kept: a look that the next question about the same picture gets.
    """

    def __init__(self, model: Model, job: Job) -> None:
        super().__init__(model, job)
        self.learnt_ms: float | None = None
        self.kept: Looked | None = None
        self._learnt: set[str] = set()

    def learn(self, words: Vocabulary) -> None:
        """Encodes the words, once; the time of the first ones counts."""
        if words.content_hash in self._learnt:
            return
        self._learnt.add(words.content_hash)
        begun = time.perf_counter()
        super().learn(words)
        if self.learnt_ms is None:
            self.learnt_ms = 1e3 * (time.perf_counter() - begun)

    def look(self, image: NDArray[np.uint8]) -> Looked:
        """Looks at (H, W, 3) uint8 RGB once."""
        kept, self.kept = self.kept, None
        if kept is not None and np.array_equal(kept.image, image):
            return kept
        begun = time.perf_counter()
        looked = super().look(image)
        looked.timing["encode"] = 1e3 * (time.perf_counter() - begun)
        return looked
