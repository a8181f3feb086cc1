"""Names of crops and of true boxes, scene by scene, recorded as the protocols record their answers."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from eval.running.asking import Looked
from eval.running.done import Done
from eval.running.journal import Journal, Record, done_indices
from eval.running.share import RECORDS, Opened
from eval.scenes.crops import SMALLEST_CROP, CropNamer, drawn_crops, scene_crops
from eval.scenes.naming import Pairs, naming_numbers
from eval.scenes.regions import RegionNamer, region_numbers
from eval.scenes.settings import Measure, Metrics, SceneEvaluation
from ovperception.datasets.samples import Sample
from ovperception.datasets.scene_sets import DrawnScenes
from ovperception.datasets.scenes.vocabulary import chosen_categories, scenes_vocabulary
from ovperception.images import write_file

if TYPE_CHECKING:
    from ovperception.model import Model

__all__ = ["NamingTask"]

_DRAWN = "drawn_crops.json"


class NamingTask:
    """An `ImageTask`, and a context manager, which closes the journal.

    Args:
        model: to be judged.
        settings: on what.
        opened: the scenes, and the folder of the records.
        wanted: measures; "crop" and "region" count.
        session: name of the session.
    """

    words = None  # each namer makes its own classifier

    def __init__(
        self,
        model: Model,
        settings: SceneEvaluation,
        opened: Opened,
        wanted: Collection[Measure],
        session: str,
    ) -> None:
        things = scenes_vocabulary(settings.words, stuff=False)
        self._categories = chosen_categories(settings.words)
        self._scenes = cast("DrawnScenes", opened.dataset)
        self._folder = opened.job.out / RECORDS
        words = opened.question.vocabulary
        self._crops = CropNamer(model, self._categories, things) if "crop" in wanted else None
        self._regions = RegionNamer(model, self._categories, words, things) if "region" in wanted else None
        self.count = settings.images
        self.masks = None if self._regions is None else False
        self.done = done_indices(self._folder)
        self._journal = Journal(self._folder, session, 0)
        side = max(SMALLEST_CROP, model.spec.image_size)
        self._drawn = self._named_drawn(settings.crops_per_class, side) if self._crops else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.__exit__()

    def _named_drawn(self, each: int, side: int) -> Pairs:
        path = self._folder / _DRAWN
        if not path.is_file():
            assert self._crops is not None
            pairs = self._crops.names(drawn_crops(self._categories, each, side))
            write_file(path, json.dumps(pairs.tolist()).encode())
        return np.array(json.loads(path.read_bytes()), np.int64).reshape(-1, 2)

    def record(self, index: int, sample: Sample, looked: Looked, encode_s: float, *, masks: bool) -> None:
        """Names the things of one scene."""
        drawn = self._scenes.drawn(index)
        begun = time.perf_counter()
        found: Record = {}
        if self._crops is not None:
            found["crop"] = self._crops.names(scene_crops(drawn, self._categories)).tolist()
        if self._regions is not None:
            found |= self._regions.record(drawn, looked.scene)
        spent = time.perf_counter() - begun
        self._journal.append(
            {
                "i": index,
                "id": sample.image_id,
                "at": round(time.time(), 3),
                "asked_s": round(encode_s + spent, 6),
                "judged_s": 0.0,
                "timing": {name: round(ms, 3) for name, ms in looked.timing.items()},
            }
            | found
        )

    def numbers(self) -> Metrics:
        """``crop/...`` and ``region/...``, of what was to be named."""
        records = list(Done(self._folder, self.count))
        found: Metrics = {}
        things = [c for c in self._categories if c.is_thing]
        if self._drawn is not None:
            found |= naming_numbers("crop/top1", self._drawn, things)
            pairs: list[Any] = [np.array(r["crop"], np.int64).reshape(-1, 2) for r in records]
            found |= naming_numbers("crop/top1_scene", np.concatenate(pairs), things)
        if self._regions is not None:
            found |= region_numbers(records, self._categories)
        return found
