"""One image's answer beside its truth: what goes into the record, and what into the official files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from eval.metrics import BoundaryIoU, ConfusionMatrix, FewShotIoU, PanopticQuality, PanopticSegment
from eval.metrics.confusion import pair_runs
from eval.outcome import Answer
from eval.protocols import AP, PQ, FewShot, MeanIoU
from eval.running.agreement import box_agreement
from eval.running.instance_files import write_instances
from eval.running.job import Job
from eval.running.journal import Record
from eval.running.prediction_files import LabelWriter, panoptic_name, save_map
from eval.running.question import Question
from ovperception.datasets.samples import IGNORE, Dataset, Instances, Sample
from ovperception.structures import Detections, PanopticMap, SemanticMap

__all__ = ["Judge", "judge_of"]


class Judge(Protocol):
    """Compares one image; what it returns is added to the record."""

    @property
    def masks(self) -> bool:
        """Whether masks are wanted of detections."""
        ...

    def record(self, sample: Sample, answer: Answer) -> Record:
        """The judgement of one image; maps are on the disk when it returns."""
        ...


def judge_of(job: Job, dataset: Dataset, question: Question, *, keep_truth: bool) -> Judge:
    """The judge of a job's metric.

    Args:
        job: what is evaluated.
        dataset: whose truth counts.
        question: which classes count.
        keep_truth: put the true objects into the records, where no annotation file has them.
    """
    metric = job.protocol.metric
    if isinstance(metric, AP):
        return _Objects(job, dataset, question, keep_truth)
    if isinstance(metric, PQ):
        return _Segments(job, dataset, question)
    if isinstance(metric, FewShot):
        return _Episodes(job, dataset, question)
    return _Labels(job, dataset, question)


class _Objects:
    """Boxes and masks: results are kept as they are, AP is computed at the end."""

    def __init__(self, job: Job, dataset: Dataset, question: Question, keep_truth: bool) -> None:
        metric = cast("AP", job.protocol.metric)
        self.masks = metric.iou != "bbox"
        self._own_files = job.out if metric.kind == "cityscapes" else None
        self._keep_truth = keep_truth
        self._question = question
        self._ids = [category.id for category in question.categories]
        self._judged = np.array([-1 if i is None else i for i in question.judged], np.int64)
        self._labels = np.array([-1 if i is None else i for i in question.labels], np.int64)

    def record(self, sample: Sample, answer: Answer) -> Record:
        found = cast("Detections", answer)
        if self.masks and found.masks is None and len(found):
            from ovperception.errors import Unsupported

            raise Unsupported(
                "This model gives boxes without masks",
                field="protocol",
                expected="a protocol of boxes",
                mend="Take the protocol whose name ends in _box",
            )
        classes = self._judged[found.class_ids]
        found = found.filter(classes >= 0)
        classes = classes[classes >= 0]
        truth = sample.instances()
        mine = self._labels[truth.classes]
        shown = (mine >= 0) & ~truth.crowd
        seen = box_agreement(
            truth.boxes[shown], mine[shown], found.boxes.astype(np.float64), classes.astype(np.int64)
        )
        boxes = found.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        record: Record = {
            "size": list(sample.size or found.size),
            "categories": [self._ids[i] for i in classes.tolist()],
            "scores": found.scores.tolist(),
            "boxes": boxes.tolist(),
            "score": seen.score,
            "objects": seen.objects,
            "found": seen.found,
            "pairs": [[true, given, count] for (true, given), count in seen.pairs.items()],
        }
        if self.masks:
            record["masks"] = [mask.to_coco()["counts"] for mask in found.masks or ()]
        if self._own_files is not None:
            masks = (mask.decode() for mask in found.masks or ())
            record["file"] = write_instances(
                self._own_files, sample, record["categories"], record["scores"], masks
            )
        if self._keep_truth:
            record |= self._truth(truth, mine)
        return record

    def _truth(self, truth: Instances, mine: NDArray[np.int64]) -> Record:
        rows = []
        for n in np.flatnonzero(mine >= 0).tolist():
            x0, y0, x1, y1 = truth.boxes[n].tolist()
            row: dict[str, Any] = {
                "category_id": self._ids[int(mine[n])],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": float(truth.areas[n]),
                "iscrowd": int(truth.crowd[n]),
            }
            if self.masks:
                row["segmentation"] = cast("Any", truth.masks[n].to_coco())
            rows.append(row)
        known = {"negative": truth.negative, "not_exhaustive": truth.not_exhaustive}
        lists = {name: self._named(classes) for name, classes in known.items()}
        return {"truth": rows, **lists}

    def _named(self, classes: Sequence[int]) -> list[int]:
        chosen = [self._labels[i] for i in classes]
        return sorted(self._ids[int(i)] for i in chosen if i >= 0)


class _Labels:
    """A class for every pixel: counted now, kept as a PNG."""

    masks = False

    def __init__(self, job: Job, dataset: Dataset, question: Question) -> None:
        self._count = len(question.categories)
        self._judged = np.array([-1 if i is None else i for i in question.judged] + [-1], np.int32)
        self._boundary = cast("MeanIoU", job.protocol.metric).boundary
        self._writer = LabelWriter(job.out, dataset)

    def record(self, sample: Sample, answer: Answer) -> Record:
        labels = self._judged[cast("SemanticMap", answer).labels]  # undecided is the last entry
        truth = sample.labels()
        confusion = ConfusionMatrix(self._count)
        confusion.add(truth, labels, ignore_label=IGNORE)
        cells = np.flatnonzero(confusion.counts.ravel())
        hits, true = confusion.hits, confusion.truth_pixels
        present = np.flatnonzero(true)
        union = true[present] + confusion.predicted_pixels[present] - hits[present]
        iou = hits[present] / np.maximum(union, 1)
        record: Record = {
            "file": self._writer.write(sample, labels),
            "size": list(labels.shape),
            "cells": cells.tolist(),
            "pixels": confusion.counts.ravel()[cells].tolist(),
            "score": float(iou.mean()) if len(iou) else None,
            "objects": len(present),
            "found": int((iou > 0.5).sum()),
        }
        if self._boundary is not None:
            edges = BoundaryIoU(self._count, self._boundary)
            edges.add(truth, labels, ignore_label=IGNORE)
            record["boundary"] = edges.cells()
        return record


class _Segments:
    """A segment for every pixel: matched now, kept as a PNG."""

    masks = False

    def __init__(self, job: Job, dataset: Dataset, question: Question) -> None:
        self._categories = question.categories
        self._row = {category.id: i for i, category in enumerate(question.categories)}
        self._labels = question.labels
        self._ids = [question.categories[i].id if i is not None else -1 for i in question.judged]
        self._out = job.out

    def record(self, sample: Sample, answer: Answer) -> Record:
        found, truth = cast("PanopticMap", answer), sample.panoptic()
        name = panoptic_name(sample)
        row = found.to_coco(0, name, self._ids)
        true = [
            PanopticSegment(s.id, self._categories[i].id, s.is_crowd)
            for s in truth.segments
            if (i := self._labels[s.class_id]) is not None
        ]
        given = [PanopticSegment(s["id"], s["category_id"]) for s in row["segments_info"]]
        quality = PanopticQuality(self._categories)
        quality.add(truth.ids, true, found.ids, given)
        mean = quality.of()
        tallies = [[self._row[i], t.tp, t.fp, t.fn, t.iou] for i, t in quality.tallies.items()]
        save_map(found, self._out, name)
        return {
            "file": name,
            "size": list(found.size),
            "segments": row["segments_info"],
            "tallies": tallies,
            "score": None if mean is None else mean.pq,
            "objects": sum(t[1] + t[3] for t in tallies),
            "found": sum(t[1] for t in tallies),
            "pairs": self._pairs(truth.ids, true, found.ids, given),
        }

    def _pairs(
        self,
        truth_ids: NDArray[np.integer],
        truth: Sequence[PanopticSegment],
        found_ids: NDArray[np.integer],
        found: Sequence[PanopticSegment],
    ) -> list[list[int]]:
        """Pixels by true and given class, -1 for void."""
        rows = [{s.id: self._row[s.category_id] for s in side} for side in (truth, found)]
        first, second, lengths = pair_runs(truth_ids, found_ids)
        pairs: Counter[tuple[int, int]] = Counter()
        for a, b, n in zip(first.tolist(), second.tolist(), lengths.tolist(), strict=True):
            pairs[rows[0].get(a, -1), rows[1].get(b, -1)] += n
        return [[true, given, n] for (true, given), n in pairs.items() if true >= 0]


class _Episodes:
    """One class in one picture."""

    masks = False

    def __init__(self, job: Job, dataset: Dataset, question: Question) -> None:
        self._categories = question.categories
        self._resolution = job.protocol.resolution
        self._out = job.out

    def record(self, sample: Sample, answer: Answer) -> Record:
        assert sample.asked is not None
        found = cast("SemanticMap", answer).labels == 0
        labels = sample.labels()
        truth, judged = labels == sample.asked[0], labels != IGNORE
        if self._resolution is not None and self._resolution.square:
            side = np.stack([truth, judged, np.zeros_like(truth)], axis=2).astype(np.uint8)
            planes = _nearest(side, found.shape)
            truth, judged = planes[..., 0] > 0, planes[..., 1] > 0
        category = self._categories[sample.asked[0]]
        counted = FewShotIoU([category])
        counted.add(category.id, truth, found, judged=judged)
        both, either = counted.counts[0, 1].tolist()
        name = f"{Path(str(sample.image_id)).as_posix()}_{category.name.replace(' ', '_')}.png"
        save_map(found.astype(np.uint8) * 255, self._out, f"masks/{name}")
        return {
            "file": f"masks/{name}",
            "size": list(found.shape),
            "class": sample.asked[0],
            "counts": counted.counts[0].tolist(),
            "score": both / either if either else None,
            "objects": 1,
            "found": int(either > 0 and both / either > 0.5),
        }


def _nearest(planes: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """(H, W, C) at another size, without new values."""
    import cv2

    if planes.shape[:2] == size:
        return planes
    return np.asarray(cv2.resize(planes, size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
