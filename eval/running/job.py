"""What is to be evaluated: a model, a protocol and a data set, opened the same way in every process."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eval.protocols import AP, PQ, Background, EvaluationProtocol, MeanIoU, protocol, protocols
from eval.running.annotation_checks import foreign_categories
from ovperception.datasets.categories import Classes, builtin_classes
from ovperception.datasets.coco import coco_dataset
from ovperception.datasets.labelled_images import label_folder
from ovperception.datasets.named import named_dataset, open_dataset
from ovperception.datasets.samples import Dataset, Truth
from ovperception.datasets.scene_sets import DrawnScenes, scenes_classes
from ovperception.datasets.scenes.vocabulary import Part
from ovperception.errors import InvalidParameter, Unsupported
from ovperception.vocabulary import builtin_names

if TYPE_CHECKING:
    from ovperception.sliding import Views

__all__ = ["Job", "ResolutionChoice", "judged_classes", "open_data", "protocol_of_data", "truth_of"]

ResolutionChoice = Literal["protocol", "model"]
_OWN = "the file's own categories"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One evaluation.

    Attributes:
        model: name in the catalogue, path of a bundle, or name on the server.
        protocol: how to measure.
        out: folder of the results.
        data: name of a data set, a COCO-format JSON, or a folder of label maps.
        root: where the data set lies; of a JSON or a folder of labels, the folder of pictures.
        split: of the data set; None for the protocol's.
        words: file of the class list, for a folder of labels.
        limit: judge the first images only.
        first: index of the first scene, of drawn ones.
        size: side in pixels of drawn scenes.
        part: of the words of drawn scenes, which is asked and judged.
        device: where a model in process runs.
        server: address of a server to ask instead; "" for none.
        resolution: of the protocol, or left to the model.
        views: how the head looks several times; None leaves it to the model's bundle.
        workers: processes.
    """

    model: str
    protocol: EvaluationProtocol
    out: Path
    data: str
    root: Path | None = None
    split: str | None = None
    words: Path | None = None
    limit: int | None = None
    first: int = 0
    size: int = 512
    part: Part = "all"
    device: str = "cpu"
    server: str = ""
    resolution: ResolutionChoice = "protocol"
    views: Views | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("limit", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidParameter(f"{name} is too small", field=name, expected="at least 1", got=value)
        chosen = self.resolution == "protocol" and self.protocol.resolution is not None
        square = self.protocol.resolution is not None and self.protocol.resolution.square
        if self.server and ((chosen and not square) or self.window):
            raise Unsupported(
                f"A server resizes pictures as its model does, not as {self.protocol.name} says",
                field="resolution",
                expected="'model', which the report then tells",
                got=self.resolution,
                mend="Add --resolution model, or evaluate in process",
            )
        if self.views is not None:
            self._check_views()

    def _check_views(self) -> None:
        if self.server:
            raise Unsupported(
                "A server looks as often as its model's bundle says",
                field="views",
                expected="no views with --server",
                got=self.views,
                mend="Evaluate in process, or serve a bundle whose head has these views and leave them out",
            )
        if self.window:
            raise Unsupported(
                f"{self.protocol.name} looks window by window already",
                field="views",
                expected=f"no views beside {self.protocol.window}",
                got=self.views,
                mend="Leave them out, or add --resolution model, and the protocol's windows are left out",
            )

    @property
    def window(self) -> bool:
        """Whether pictures are looked at window by window."""
        return self.protocol.window is not None and self.resolution == "protocol"


def protocol_of_data(data: str) -> EvaluationProtocol:
    """The protocol that is meant if only data is named: the first one of it.

    Raises:
        NotFound: there is no such data set.
        Unsupported: the data set has no protocol.
    """
    if data.endswith(".json"):
        return _own_words(protocol("coco_box"), "COCO's rules on a file of your own")
    if Path(data).is_dir():
        return _own_words(protocol("scenes_semantic"), "label maps of your own", Background())
    named_dataset(data)
    found = next((row for row in protocols() if row.data == data), None)
    if found is None:
        raise Unsupported(
            f"No protocol is of {data}", field="protocol", mend="Name one: `ovp eval --protocols` lists them"
        )
    return found


def _own_words(
    base: EvaluationProtocol, title: str, background: Background | None = None
) -> EvaluationProtocol:
    return dataclasses.replace(
        base, title=title, vocabulary=_OWN, groups=(), background=background or base.background, notes=""
    )


def open_data(job: Job) -> Dataset:
    """Opens the data set of a job.

    Raises:
        NotFound, InvalidParameter, MissingFile, InvalidDataset: as `open_dataset`; InvalidParameter too where
            files of one's own have other classes than the protocol.
        Unsupported: it has not the truth that the protocol compares with.
    """
    _check_rules(job)
    dataset = _opened(job)
    if job.words is not None or job.data.endswith(".json"):
        _check_classes(job.protocol, dataset)
    needed = truth_of(job.protocol)
    if needed not in dataset.truths:
        raise Unsupported(
            f"{dataset.name} has no {needed}",
            field="data",
            expected=f"a data set with {needed}, as {job.protocol.name} asks",
            got=", ".join(sorted(dataset.truths)),
        )
    return dataset


def _check_rules(job: Job) -> None:
    """Cityscapes' rules want what its files alone tell: what of a picture is not judged."""
    metric = job.protocol.metric
    if isinstance(metric, AP) and metric.kind == "cityscapes" and job.data != job.protocol.data:
        raise Unsupported(
            f"{job.protocol.name} judges by rules of Cityscapes, which need its own files",
            field="data",
            expected=job.protocol.data,
            got=job.data,
            mend="Add --metric mask for COCO's rules, or leave --data out",
        )


def _check_classes(chosen: EvaluationProtocol, dataset: Dataset) -> None:
    """Files of one's own say what a number stands for: by another list it would be another class."""
    judged = judged_classes(chosen, dataset)
    own = [{"id": i, "name": n} for i, n in zip(dataset.category_ids, dataset.vocabulary.names, strict=True)]
    other_length = isinstance(chosen.metric, MeanIoU) and len(own) != len(judged.category_ids)
    if other_length or 2 * foreign_categories(own, judged) > len(own):
        first = ", ".join(judged.vocabulary.names[:3])
        raise InvalidParameter(
            f"The classes of these files are not those of {chosen.name}",
            field="data",
            expected=f"its {len(judged.category_ids)} classes: {first}, ...",
            got=f"{len(own)} classes: {', '.join(dataset.vocabulary.names[:3])}, ...",
            mend="Leave --protocol out, and the files' own classes are judged",
        )


def _opened(job: Job) -> Dataset:
    if job.data == "scenes":
        count = job.limit or named_dataset("scenes").images or 1
        split = job.split or job.protocol.split
        return DrawnScenes(split, count, first=job.first, size=job.size, words=job.part)  # type: ignore[arg-type]
    if job.data.endswith(".json"):
        return coco_dataset(job.data, job.root or Path(job.data).parent)
    if job.words is not None or Path(job.data).is_dir():
        if job.words is None or job.root is None:
            raise InvalidParameter(
                "A folder of label maps needs its classes and its pictures",
                field="classes" if job.words is None else "root",
                expected="--classes FILE --root FOLDER_OF_PICTURES",
            )
        return label_folder(job.root, job.data, job.words)
    usual = job.protocol.split if job.data == job.protocol.data else None
    return open_dataset(job.data, job.root, job.split or usual)


def truth_of(chosen: EvaluationProtocol) -> Truth:
    """What the protocol compares with."""
    if isinstance(chosen.metric, AP):
        return "instances"
    return "panoptic" if isinstance(chosen.metric, PQ) else "labels"


def judged_classes(chosen: EvaluationProtocol, dataset: Dataset) -> Classes:
    """The classes that are judged, with the ids that files give them.

    Label maps are judged by the data set's own order of classes, whose words the protocol may change.
    """
    own = Classes(vocabulary=dataset.vocabulary, category_ids=dataset.category_ids)
    if chosen.vocabulary == "scenes":
        return own if isinstance(dataset, DrawnScenes) else scenes_classes()
    if chosen.vocabulary not in builtin_names():
        return own
    known = builtin_classes(chosen.vocabulary)
    if isinstance(chosen.metric, MeanIoU) and len(known.vocabulary) == len(dataset.vocabulary):
        return Classes(vocabulary=known.vocabulary, category_ids=dataset.category_ids)
    return known
