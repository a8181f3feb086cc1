"""The best and the worst images of a run, with what is there and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from eval.metrics.label_images import read_label_map, read_panoptic_map
from eval.outcome import Answer, Example, ImageScore
from eval.protocols import AP, PQ, FewShot
from eval.running.done import Done
from eval.running.journal import Record
from eval.running.prediction_files import FOLDER, label_numbers
from eval.running.share import Opened
from ovperception.datasets.samples import Sample
from ovperception.images import encode_png, write_file
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, Segment, SemanticMap

__all__ = ["EACH", "examples", "image_scores"]

EACH = 6
"""Images from either end."""


def image_scores(done: Done) -> tuple[ImageScore, ...]:
    """Every image, in the order of the data set."""
    return tuple(
        ImageScore(
            image_id=record["id"],
            file_name=record["name"],
            path=record["path"],
            score=record["score"],
            objects=record["objects"],
            found=record["found"],
        )
        for record in done
    )


def examples(opened: Opened, done: Done, images: Sequence[ImageScore]) -> tuple[Example, ...]:
    """The best and the worst images; pictures that were drawn are written beside them."""
    indices = [record["i"] for record in done]
    ranked = sorted(
        (image.score, -index, image, index)
        for image, index in zip(images, indices, strict=True)
        if image.score is not None
    )
    each = min(EACH, len(ranked) // 2)
    chosen: list[tuple[Literal["best", "worst"], ImageScore, int]] = []
    chosen += [("worst", image, index) for _, _, image, index in ranked[:each]]
    chosen += [("best", image, index) for _, _, image, index in reversed(ranked[len(ranked) - each :])]
    return tuple(_example(opened, done[index], which, image) for which, image, index in chosen)


def _example(opened: Opened, record: Record, which: Literal["best", "worst"], image: ImageScore) -> Example:
    sample = opened.dataset.sample(record["i"])
    picture = image.path
    if not picture:
        picture = f"examples/picture_{record['i']:06d}.png"
        path = opened.job.out / picture
        path.parent.mkdir(exist_ok=True)
        write_file(path, encode_png(sample.image()))
    truth, found = _answers(opened, sample, record)
    return Example(which=which, image=image, picture=picture, truth=truth, found=found)


def _answers(opened: Opened, sample: Sample, record: Record) -> tuple[Answer, Answer]:
    metric = opened.job.protocol.metric
    if isinstance(metric, AP):
        return _true_objects(opened, sample, record), _found_objects(opened, record)
    if isinstance(metric, PQ):
        return _true_segments(opened, sample), _found_segments(opened, record)
    if isinstance(metric, FewShot):
        return _episode(opened, sample, record)
    return _true_labels(opened, sample), _found_labels(opened, record)


def _names(opened: Opened) -> tuple[str, ...]:
    return tuple(category.name for category in opened.question.categories)


def _true_objects(opened: Opened, sample: Sample, record: Record) -> Detections:
    truth = sample.instances()
    mine = np.array([-1 if i is None else i for i in opened.question.labels], np.int64)[truth.classes]
    shown = np.flatnonzero((mine >= 0) & ~truth.crowd)
    height, width = record["size"]
    masks = "masks" in record and truth.read_mask is not None
    return Detections(
        size=(height, width),
        classes=_names(opened),
        boxes=truth.boxes[shown].astype(np.float32),
        scores=np.ones(len(shown), np.float32),
        class_ids=mine[shown],
        masks=tuple(truth.masks[n] for n in shown.tolist()) if masks else None,
    )


def _found_objects(opened: Opened, record: Record) -> Detections:
    index = {category.id: i for i, category in enumerate(opened.question.categories)}
    height, width = record["size"]
    count = record["objects"]
    boxes = np.array(record["boxes"][:count], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = [RLE((height, width), counts.encode()) for counts in record.get("masks", ())[:count]]
    return Detections(
        size=(height, width),
        classes=_names(opened),
        boxes=boxes,
        scores=np.array(record["scores"][:count], np.float32),
        class_ids=np.array([index[c] for c in record["categories"][:count]], np.int64),
        masks=tuple(masks) if "masks" in record else None,
    )


def _true_segments(opened: Opened, sample: Sample) -> PanopticMap:
    truth, question = sample.panoptic(), opened.question
    segments = tuple(
        Segment(
            id=s.id,
            class_id=i,
            score=1.0,
            area=int((truth.ids == s.id).sum()),
            is_thing=question.categories[i].is_thing,
        )
        for s in truth.segments
        if (i := question.labels[s.class_id]) is not None
    )
    return PanopticMap(classes=_names(opened), ids=truth.ids, segments=segments)


def _found_segments(opened: Opened, record: Record) -> PanopticMap:
    categories = opened.question.categories
    index = {category.id: i for i, category in enumerate(categories)}
    segments = []
    for row in record["segments"]:
        i = index[row["category_id"]]
        segments.append(
            Segment(id=row["id"], class_id=i, score=1.0, area=row["area"], is_thing=categories[i].is_thing)
        )
    ids = read_panoptic_map(_file(opened, record)).astype(np.int32)
    return PanopticMap(classes=_names(opened), ids=ids, segments=tuple(segments))


def _true_labels(opened: Opened, sample: Sample) -> SemanticMap:
    return SemanticMap(classes=_names(opened), labels=sample.labels())


def _found_labels(opened: Opened, record: Record) -> SemanticMap:
    values = read_label_map(_file(opened, record))
    table = np.full(65536, -1, np.int32)
    table[list(label_numbers(opened.dataset))] = np.arange(len(opened.question.categories))
    return SemanticMap(classes=_names(opened), labels=table[values])


def _episode(opened: Opened, sample: Sample, record: Record) -> tuple[SemanticMap, SemanticMap]:
    classes = (opened.question.categories[record["class"]].name,)
    found = np.where(read_label_map(_file(opened, record)) > 0, 0, -1).astype(np.int32)
    truth = np.where(sample.labels() == record["class"], 0, -1).astype(np.int32)
    if found.shape != truth.shape:  # it was compared at the protocol's own size
        import cv2

        size = truth.shape[::-1]
        found = np.asarray(cv2.resize(found, size, interpolation=cv2.INTER_NEAREST), np.int32)
    return SemanticMap(classes=classes, labels=truth), SemanticMap(classes=classes, labels=found)


def _file(opened: Opened, record: Record) -> Path:
    name: str = record["file"]
    return opened.job.out / FOLDER / name
