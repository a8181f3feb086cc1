"""What a finished evaluation holds, whoever made the predictions, and how it lies in a folder.

The runner and the scorer of files write an `Outcome`; reports and comparisons read it and nothing else::

    OUT/metrics.json       flat: name -> number 0-1, or null; for scripts
    OUT/outcome.json       all the rest, see `Outcome`
    OUT/latencies.json     stage -> milliseconds of each image, in the order of `Outcome.images`
    OUT/image_counts.npz   what each image added to each class, for maps: resample it and add it up
    OUT/examples/          pictures and maps of the best and worst images
    OUT/predictions/       the submission format: results.json, panoptic.json + panoptic/, or labels/

Paths inside are relative to OUT where the file lies in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ovperception.structures import Detections, PanopticMap, SemanticMap

__all__ = [
    "EDGE_COLUMNS",
    "PIXEL_COLUMNS",
    "Answer",
    "Breakdown",
    "ClassRow",
    "ConfusedPair",
    "CountedWarning",
    "Curve",
    "Example",
    "ImageCounts",
    "ImageScore",
    "Outcome",
    "RunFacts",
]

Answer = Detections | SemanticMap | PanopticMap
PIXEL_COLUMNS = ("intersection", "truth", "predicted")
EDGE_COLUMNS = ("both_edges", "either_edge", "counted_edge")
"""Columns of `ImageCounts`; of the last one a class must have some to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What one must know to repeat a run; "" where it does not apply or nobody can tell.

    Attributes:
        command: that was typed.
        model: name and version; of a file scored, "".
        model_digest: of its weights.
        backbone: name.
        backbone_digest: of its weights.
        device: where it ran.
        server: address, if it was asked over gRPC.
        data: name of the opened data set.
        split: of it.
        truth: path of the annotations; "" where the truth was drawn and not kept.
        predictions: path of the predictions, in the official format.
        vocabulary: name of the class list that was asked.
        vocabulary_hash: its content hash.
        templates: name of the set, or the templates joined by "; ".
        resolution: of the pictures as the model saw them.
        augmentation: at test time: scales, mirrored pictures, windows.
        seed: of what was drawn.
        commit: of the checkout.
        versions: library -> version.
        machine: processor, cores, accelerator, system.
        started: ISO 8601, UTC.
        workers: processes.
        seconds: of wall-clock, all sessions of a resumed run together.
        inference_seconds: of them inside the model or waiting for the server, all processes added.
        evaluation_seconds: of them judging.
        resumed: how often the run was taken up again.
    """

    command: str = ""
    model: str = ""
    model_digest: str = ""
    backbone: str = ""
    backbone_digest: str = ""
    device: str = ""
    server: str = ""
    data: str = ""
    split: str = ""
    truth: str = ""
    predictions: str = ""
    vocabulary: str = ""
    vocabulary_hash: str = ""
    templates: str = ""
    resolution: str = ""
    augmentation: str = ""
    seed: str = ""
    commit: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    started: str = ""
    workers: int = 1
    seconds: float = 0.0
    inference_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    resumed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """The numbers of one class.

    Attributes:
        id: in the annotation file; of label maps, the label.
        name: of the class.
        groups: every group of the protocol it is in: "base", "novel", "r", "c", "f", "things", "stuff".
        is_thing: it has instances.
        values: column -> number, 0-1 or a count; None where nothing can be said.
    """

    id: int
    name: str
    groups: tuple[str, ...] = ()
    is_thing: bool = True
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Precision over recall.

    Attributes:
        name: of the class; "all" and the groups' names are means over their classes.
        class_id: None for a mean.
        iou: from which a detection counts as right; None for the mean over 0.5 to 0.95.
        precision: at recall 0, 0.01, ... 1: 101 numbers.
    """

    name: str
    class_id: int | None
    iou: float | None
    precision: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedPair:
    """How often one class was taken for another; the most frequent ones are kept.

    Attributes:
        truth: name of the class it is; "" for what is none (a false detection on nothing).
        predicted: name it was given; "" for what was not found.
        count: pixels of maps, objects of boxes and segments.
        share: of all pixels or objects of the true class, 0-1.
    """

    truth: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """The numbers of parts of the truth.

    Attributes:
        name: "size", "frequency", "words" (base and novel) or "kind" (things and stuff).
        rows: part -> column -> number.
    """

    name: str
    rows: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageScore:
    """How well one image went, for sorting; means over images are not the metric.

    Attributes:
        image_id: of the annotation file.
        file_name: as the data set calls it.
        path: of the picture; "" where it was drawn, or is not known.
        score: 0-1. Of detection the share of the R highest detections that are right at IoU 0.5 of boxes,
            R the number of true objects; of maps PQ or mIoU of this image alone. None where there is nothing
            to find.
        objects: true objects, segments, or classes present.
        found: right ones among the answers.
    """

    image_id: int | str
    file_name: str
    path: str
    score: float | None
    objects: int = 0
    found: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An image to look at: ``found.draw(picture)`` and ``truth.draw(picture)``.

    Attributes:
        which: end of the scale it is from.
        image: its score.
        picture: path of the picture, under OUT if relative.
        truth: what is there; detections of it have score 1.
        found: what the model said; of detections the R highest, R the number of true objects.
    """

    which: Literal["best", "worst"]
    image: ImageScore
    picture: str
    truth: Answer
    found: Answer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageCounts:
    """What each image added to each class: any set of images can be added up again, as a bootstrap does.

    Attributes:
        columns: names of the M numbers: of mIoU "intersection", "truth", "predicted" (pixels; IoU is
            intersection / (truth + predicted - intersection)), and of boundaries judged beside it
            `EDGE_COLUMNS`; of PQ "tp", "fp", "fn", "iou".
        images: (N,) int64 index into `Outcome.images`.
        classes: (N,) int64 index into `Outcome.per_class`.
        values: (N, M) float64.
    """

    columns: tuple[str, ...]
    images: NDArray[np.int64]
    classes: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedWarning:
    """Something odd that did not make a number wrong; see `eval.metrics.WARNINGS`."""

    name: str
    count: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished evaluation.

    Attributes:
        protocol: name; "scenes" for the built-in measures that are no protocol.
        title: of it, in a few words.
        kind: family of the numbers, see `eval.metrics.Scores`.
        headline: the metric that people quote.
        report_line: everything that must be the same to compare a number.
        metrics: name -> number, 0-1; None where nothing can be said.
        rules: how the numbers were made: rule -> choice.
        facts: what one must know to repeat it.
        per_class: every class that was judged.
        curves: of detection.
        confusion: the most confused pairs, the most frequent first.
        breakdowns: by size, frequency, and the parts of the vocabulary.
        latencies: stage -> milliseconds an image, in the order of `images`; empty for files scored.
        images: every image, in the order of the data set.
        examples: the best and the worst images.
        counts: per image and class, of maps; None of detections, which have ``predictions`` and ``truth``.
        warnings: what was odd in the input.
    """

    protocol: str
    title: str
    kind: str
    headline: str
    report_line: str
    metrics: Mapping[str, float | None]
    rules: Mapping[str, str] = field(default_factory=dict)
    facts: RunFacts = field(default_factory=RunFacts)
    per_class: tuple[ClassRow, ...] = ()
    curves: tuple[Curve, ...] = ()
    confusion: tuple[ConfusedPair, ...] = ()
    breakdowns: tuple[Breakdown, ...] = ()
    latencies: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    images: tuple[ImageScore, ...] = ()
    examples: tuple[Example, ...] = ()
    counts: ImageCounts | None = None
    warnings: tuple[CountedWarning, ...] = ()
