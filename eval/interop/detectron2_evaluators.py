"""Our metrics inside detectron2: evaluators for ``inference_on_dataset``, side by side with its own.

They have the methods of detectron2's ``DatasetEvaluator`` (reset, process, evaluate) and gather over its
processes where it is installed: ``DatasetEvaluators([COCOEvaluator(...), DetectionEvaluator(...)])`` runs
both in one pass. Numbers are in percent, as detectron2 prints them; the scores of the last evaluation, with
per-class numbers and warnings, are in ``scores``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eval.metrics import (
    AveragingRule,
    Category,
    ConfusionMatrix,
    IoUKind,
    LabelCoding,
    PanopticQuality,
    PanopticSegment,
    Scores,
    read_panoptic_files,
    score_coco,
    score_lvis,
    score_semantic,
)
from eval.metrics.columns import records
from eval.metrics.label_images import read_label_map, read_panoptic_map
from ovperception.errors import InvalidParameter, MissingFile
from ovperception.rle import RLE

__all__ = ["DetectionEvaluator", "PanopticEvaluator", "SemanticEvaluator"]

Numbers = OrderedDict[str, dict[str, float]]
Rows = Sequence[Mapping[str, Any]]


class DetectionEvaluator:
    """AP of ``instances`` by the rules of COCO or LVIS.

    Args:
        annotations: JSON of the data set.
        category_ids: (K,) its id of each contiguous class: the values of
            ``thing_dataset_id_to_contiguous_id`` turned round.
        kinds: overlaps to judge, "bbox", "segm" or "boundary".
        rules: whose.
        groups: name -> ids of classes, such as base and novel; of COCO's rules alone.
    """

    def __init__(
        self,
        annotations: str | Path,
        category_ids: Sequence[int],
        *,
        kinds: Sequence[IoUKind] = ("bbox",),
        rules: Literal["coco", "lvis", "lvis-fixed"] = "coco",
        groups: Mapping[str, Collection[int]] | None = None,
    ) -> None:
        if rules not in ("coco", "lvis", "lvis-fixed"):
            raise InvalidParameter(
                "These rules are not known", field="rules", expected="coco, lvis or lvis-fixed", got=rules
            )
        self._annotations = annotations
        self._category_ids = tuple(category_ids)
        self._kinds = tuple(kinds)
        self._rules = rules
        self._groups = groups
        self.scores: dict[str, Scores] = {}
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._boxes: list[dict[str, Any]] = []
        self._masks: list[dict[str, Any]] = []

    def process(self, inputs: Rows, outputs: Rows) -> None:
        """Takes a batch.

        Args:
            inputs: with "image_id".
            outputs: with "instances".

        Raises:
            InvalidParameter: an answer has no instances, or a class that has no id.
        """
        for one, answer in zip(inputs, outputs, strict=True):
            instances = _part(answer, "instances")
            classes = _plain(instances.pred_classes)
            scores, boxes = _plain(instances.scores), _plain(instances.pred_boxes.tensor)
            masks = _plain(instances.pred_masks) if instances.has("pred_masks") else None
            if len(classes) and int(classes.max()) >= len(self._category_ids):
                raise InvalidParameter(
                    "A predicted class has no id",
                    field="category_ids",
                    expected=f"an id for each of {int(classes.max()) + 1} classes",
                    got=f"{len(self._category_ids)} ids",
                )
            for i, k in enumerate(classes.tolist()):
                x0, y0, x1, y1 = boxes[i].tolist()
                row = {"image_id": one["image_id"], "category_id": self._category_ids[k]}
                row["score"] = float(scores[i])
                self._boxes.append({**row, "bbox": [x0, y0, x1 - x0, y1 - y0]})
                if masks is not None:
                    self._masks.append({**row, "segmentation": RLE.encode(masks[i].astype(bool)).to_coco()})

    def evaluate(self) -> Numbers | None:
        """``{"bbox": {"AP": ...}, ...}``; None in all processes but the first.

        Raises:
            InvalidDataset: the annotations are not what they should be, or do not list an image.
        """
        boxes, masks = _gathered(self._boxes), _gathered(self._masks)
        if boxes is None or masks is None:
            return None
        numbers: Numbers = OrderedDict()
        for kind in self._kinds:
            rows = [row for part in (boxes if kind == "bbox" else masks) for row in part]
            self.scores[kind] = self._scored(rows, kind)
            numbers[kind] = _percent(self.scores[kind])
        return numbers

    def _scored(self, rows: list[dict[str, Any]], kind: IoUKind) -> Scores:
        if self._rules == "coco":
            return score_coco(self._annotations, rows, iou=kind, groups=self._groups)
        return score_lvis(self._annotations, rows, iou=kind, fixed=self._rules == "lvis-fixed")


class SemanticEvaluator:
    """mIoU of ``sem_seg`` by any of the averaging rules.

    Args:
        truth: path of a picture's label map, from the input ("sem_seg_file_name" in most data sets).
        names: (K,) of the classes in the order of the labels.
        rule: what means are taken over.
        coding: how label maps are written; 255 is not judged by default.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        truth: Callable[[Mapping[str, Any]], str | Path] = lambda one: str(one["sem_seg_file_name"]),
        rule: AveragingRule = "detectron2",
        coding: LabelCoding | None = None,
    ) -> None:
        self._truth = truth
        self._categories = [Category(id=i, name=name) for i, name in enumerate(names)]
        self._rule: AveragingRule = rule
        self._coding = coding or LabelCoding()
        self.scores: dict[str, Scores] = {}
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._confusion = ConfusionMatrix(len(self._categories))

    def process(self, inputs: Rows, outputs: Rows) -> None:
        """Takes a batch.

        Args:
            inputs: with what `truth` asks for.
            outputs: with "sem_seg", (K, H, W).

        Raises:
            MissingFile: there is no label map of an image.
            InvalidRegions: a map is of another size than its truth.
        """
        for one, answer in zip(inputs, outputs, strict=True):
            found = _part(answer, "sem_seg").argmax(0)
            expected = self._coding.decode(read_label_map(Path(self._truth(one))))
            self._confusion.add(expected, _plain(found))

    def evaluate(self) -> Numbers | None:
        """``{"sem_seg": {"mIoU": ...}}``; None in all processes but the first."""
        parts = _gathered(self._confusion.to_arrays())
        if parts is None:
            return None
        total = ConfusionMatrix(len(self._categories))
        for part in parts:
            total.merge(ConfusionMatrix.from_arrays(part))
        self.scores = {"sem_seg": score_semantic(total, self._categories, rule=self._rule)}
        return OrderedDict(sem_seg=_percent(self.scores["sem_seg"]))


class PanopticEvaluator:
    """PQ of ``panoptic_seg``.

    Args:
        annotations: panoptic JSON of the data set.
        folder: its PNGs; by default beside the JSON, by its name without ".json".
        category_ids: (K,) its id of each contiguous class.
    """

    def __init__(
        self, annotations: str | Path, category_ids: Sequence[int], *, folder: str | Path | None = None
    ) -> None:
        files = read_panoptic_files(annotations, annotations, truth_folder=folder, results_folder=folder)
        self._categories, self._truth = files.categories, files.truth
        self._category_ids = tuple(category_ids)
        self.scores: dict[str, Scores] = {}
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._quality = PanopticQuality(self._categories)

    def process(self, inputs: Rows, outputs: Rows) -> None:
        """Takes a batch.

        Args:
            inputs: with "image_id".
            outputs: with "panoptic_seg": ids, (H, W), 0 for void, and the list of segments.

        Raises:
            MissingFile: an image is not annotated.
            InvalidParameter: an answer has no list of segments.
            InvalidRegions: a map is of another size than its truth, or holds other segments than are listed.
        """
        for one, answer in zip(inputs, outputs, strict=True):
            ids, segments = _part(answer, "panoptic_seg")
            if segments is None:
                raise InvalidParameter(
                    "An answer lists no segments", field="panoptic_seg", expected="ids and a list", got=None
                )
            if one["image_id"] not in self._truth:
                raise MissingFile("This image is not annotated", field="image_id", got=one["image_id"])
            entry, path = self._truth[one["image_id"]]
            self._quality.add(
                read_panoptic_map(path),
                [
                    PanopticSegment(row["id"], row["category_id"], bool(row.get("iscrowd", 0)))
                    for row in records(entry.get("segments_info"), f"{path.name}.segments_info")
                ],
                _plain(ids).astype(np.int64),
                [PanopticSegment(row["id"], self._category_ids[row["category_id"]]) for row in segments],
            )

    def evaluate(self) -> Numbers | None:
        """``{"panoptic_seg": {"PQ": ...}}``; None in all processes but the first."""
        parts = _gathered(self._quality.to_arrays())
        if parts is None:
            return None
        total = PanopticQuality(self._categories)
        for part in parts:
            total.merge(PanopticQuality.from_arrays(self._categories, part))
        self.scores = {"panoptic_seg": total.scores()}
        return OrderedDict(panoptic_seg=_percent(self.scores["panoptic_seg"]))


def _part(answer: Mapping[str, Any], name: str) -> Any:
    if name not in answer:
        raise InvalidParameter(
            f"An answer has no {name!r}", field="outputs", expected=name, got=", ".join(sorted(answer))
        )
    return answer[name]


def _plain(tensor: Any) -> Any:
    """A tensor of any device as an array."""
    return np.asarray(tensor.cpu() if hasattr(tensor, "cpu") else tensor)


def _gathered(part: Any) -> list[Any] | None:
    """What all processes have, in the first of them; None in the others."""
    try:
        from detectron2.utils import comm
    except ModuleNotFoundError:
        return [part]
    comm.synchronize()
    parts: list[Any] = comm.gather(part)
    return parts if comm.is_main_process() else None


def _percent(scores: Scores) -> dict[str, float]:
    return {n: float("nan") if v is None else 100 * v for n, v in scores.metrics.items()}
