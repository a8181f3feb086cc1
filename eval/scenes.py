"""Judges a model on the procedural world: every question, every scene, one look at each.

The model is asked for all 659 things and 8 stuffs at once (the generalised setting); base and novel are parts
of one run. Heads were trained on boxes and masks of base classes only.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import cv2

from eval.crops import SMALLEST_CROP, CropEvaluator, drawn_crops, scene_crops
from eval.detection import MAX_DETECTIONS, DetectionEvaluator
from eval.panoptic import PanopticEvaluator
from eval.regions import RegionEvaluator
from eval.semantic import SemanticEvaluator
from ovperception.datasets.scenes import SPLITS, SceneSample, Split, scene, scene_seed
from ovperception.datasets.scenes.compose import MIN_SCENE_SIDE
from ovperception.datasets.scenes.vocabulary import Part, chosen_categories, scenes_vocabulary
from ovperception.errors import InvalidParameter, ResourceExhausted, Unsupported
from ovperception.head import Task

if TYPE_CHECKING:
    from ovperception.model import Model

__all__ = ["MEASURES", "Measure", "Metrics", "SceneEvaluation", "evaluate_scenes"]

Measure = Literal["box", "semantic", "panoptic", "region", "crop"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Metrics = dict[str, float | None]
T = TypeVar("T")

_TASKS: dict[Measure, Task] = {"box": "detect", "semantic": "semantic", "panoptic": "panoptic"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneEvaluation:
    """What to measure on.

    Attributes:
        split: "train", "val" or "test".
        images: how many scenes.
        first: index of the first one.
        size: side of the square scenes in pixels.
        words: which classes are asked for and judged; the field's number is "all".
        only: what to measure; None for all that the model can answer.
        crops_per_class: drawn crops of each thing.
        workers: processes that draw scenes; with 1 they are drawn between the questions. More need a script
            with a main guard.
    """

    split: Split = "val"
    images: int = 500
    first: int = 0
    size: int = 512
    words: Part = "all"
    only: tuple[Measure, ...] | None = None
    crops_per_class: int = 3
    workers: int = 1

    def __post_init__(self) -> None:
        """Checks the settings before anything is drawn.

        Raises:
            InvalidParameter: one of them is impossible.
        """
        for name, value, known in (("split", self.split, SPLITS), ("words", self.words, get_args(Part))):
            if value not in known:
                raise InvalidParameter(
                    f"This {name} is not known", field=name, expected=f"one of {', '.join(known)}", got=value
                )
        for name, count, least in (
            ("images", self.images, 1),
            ("size", self.size, MIN_SCENE_SIDE),
            ("crops_per_class", self.crops_per_class, 1),
            ("workers", self.workers, 1),
        ):
            if count < least:
                raise InvalidParameter(
                    f"{name} is too small", field=name, expected=f"at least {least}", got=count
                )
        unknown = [name for name in self.only or () if name not in MEASURES]
        if unknown or (self.only is not None and not self.only):
            raise InvalidParameter(
                "There is no such measure",
                field="only",
                expected=f"some of {', '.join(MEASURES)}",
                got=", ".join(unknown) or "none",
            )
        scene_seed(self.split, self.first)
        scene_seed(self.split, self.first + self.images - 1)


def evaluate_scenes(
    model: Model, settings: SceneEvaluation | None = None, *, on_image: Callable[[], object] = lambda: None
) -> Metrics:
    """Measure a model.

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
    settings = SceneEvaluation() if settings is None else settings
    run = _Run(model, settings)
    run.name_drawn_crops()
    with contextlib.closing(_samples(settings)) as samples:
        for sample in samples:
            run.add(sample)
            on_image()
    return run.metrics()


class _Run:
    """The evaluators of one run and the clock."""

    def __init__(self, model: Model, settings: SceneEvaluation) -> None:
        for measure in settings.only or ():
            if measure in _TASKS and _TASKS[measure] not in model.tasks:
                raise Unsupported(
                    f"Model {model.name!r} cannot answer {_TASKS[measure]!r}",
                    field="only",
                    expected=" or ".join(m for m in MEASURES if m not in _TASKS or _TASKS[m] in model.tasks),
                    got=measure,
                )
        self._model = model
        self._settings = settings
        wanted = settings.only or MEASURES
        self._can = {m for m in wanted if m not in _TASKS or _TASKS[m] in model.tasks}
        self._times: dict[str, list[float]] = {}
        self._categories = categories = chosen_categories(settings.words)
        self._vocabulary = scenes_vocabulary(settings.words)
        self._timed("text", lambda: model.classifier(self._vocabulary))
        self._boxes = DetectionEvaluator(categories) if "box" in wanted else None
        self._semantic = SemanticEvaluator(categories) if "semantic" in wanted else None
        self._panoptic = PanopticEvaluator(categories) if "panoptic" in wanted else None
        self._crops = self._namer() if "crop" in wanted else None
        self._regions = self._region_namer() if "region" in wanted else None
        self._drawn: Metrics = {}

    def _namer(self) -> CropEvaluator:
        things = scenes_vocabulary(self._settings.words, stuff=False)
        return CropEvaluator(self._model, self._categories, things)

    def _region_namer(self) -> RegionEvaluator:
        things = scenes_vocabulary(self._settings.words, stuff=False)
        return RegionEvaluator(self._model, self._categories, self._vocabulary, things)

    def name_drawn_crops(self) -> None:
        """The part that needs no scene."""
        if self._crops is None:
            return
        namer = self._namer()
        side = max(SMALLEST_CROP, self._model.spec.image_size)
        for crop, category_id in drawn_crops(self._categories, self._settings.crops_per_class, side):
            namer.add(crop, category_id)
        self._drawn = namer.metrics("crop/top1")

    def add(self, sample: SceneSample) -> None:
        """One look, then every question."""
        words = self._vocabulary
        if self._crops is not None:
            for crop, category_id in scene_crops(sample, self._categories):
                self._crops.add(crop, category_id)
        if not self._can - {"crop"}:
            return
        looked = self._timed("encode", lambda: self._model.encode(sample.image))
        if self._boxes is not None and "box" in self._can:
            found = self._timed(
                "detect",
                lambda: looked.detect(words, score_threshold=0.0, max_detections=MAX_DETECTIONS),
            )
            self._boxes.add(sample, found)
        if self._regions is not None:
            self._regions.add(sample, looked)
        if self._semantic is not None and "semantic" in self._can:
            self._semantic.add(
                sample, self._timed("semantic", lambda: looked.semantic(words, score_threshold=0.0))
            )
        if self._panoptic is not None and "panoptic" in self._can:
            self._panoptic.add(sample, self._timed("panoptic", lambda: looked.panoptic(words)))

    def metrics(self) -> Metrics:
        """All that was found out."""
        found: Metrics = {}
        if self._crops is not None:
            found |= self._drawn | self._crops.metrics("crop/top1_scene")
        for evaluator in (self._regions, self._boxes, self._semantic, self._panoptic):
            if evaluator is not None:
                found |= evaluator.metrics()  # all None where it was shown nothing
        for name in ("text", "encode", "detect", "semantic", "panoptic"):
            times = self._times.get(name)
            found[f"timing/{name}_ms"] = statistics.median(times) if times else None
        return found

    def _timed(self, name: str, ask: Callable[[], T]) -> T:
        begun = time.perf_counter()
        answer = ask()
        self._times.setdefault(name, []).append(1e3 * (time.perf_counter() - begun))
        return answer


def _samples(settings: SceneEvaluation) -> Generator[SceneSample, None, None]:
    """The scenes in order; a few are drawn ahead, never all."""
    size = (settings.size, settings.size)
    indices = range(settings.first, settings.first + settings.images)
    if settings.workers == 1:
        for index in indices:
            yield scene(settings.split, index, size)
        return
    # "spawn": a forked OpenCV or torch may wait for threads that were not copied
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        settings.workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    )
    ahead: deque[Future[SceneSample]] = deque()
    try:
        for index in indices:
            ahead.append(pool.submit(scene, settings.split, index, size))
            if len(ahead) > 2 * settings.workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BrokenProcessPool as error:
        raise ResourceExhausted(
            "A drawing process was killed, most likely for want of memory", mend="Ask for fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
