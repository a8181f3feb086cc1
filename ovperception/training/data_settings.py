"""What a recipe or a command says about its data, and the pictures that it means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from ovperception.datasets.problems import OnProblem
    from ovperception.datasets.samples import Dataset, Truth
    from ovperception.training.coco_targets import TrainingImages
    from ovperception.vocabulary import Vocabulary

__all__ = ["DataSettings", "open_training_images", "read_vocabulary"]

_MOST_FIRST: tuple[Truth, ...] = ("panoptic", "labels", "instances")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Data to train on: your own files, or a data set that has a name.

    Attributes:
        annotations: a COCO-format file; of instances or, with `maps`, panoptic.
        images: the folder of its pictures.
        maps: the folder of PNGs of a panoptic file or, without `annotations`, of one label PNG a picture.
        name: of a data set, such as ``coco_panoptic`` or ``scenes``, instead of files.
        root: where the files of the named data set lie.
        split: of the named data set; empty: its usual one.
        truth: ``instances``, ``panoptic`` or ``labels``; empty: the one that says most.
        vocabulary: of all classes only these are learned: the name of a list or the path of one; empty: all.
        part: ``base`` learns only the base classes of the named data set's open-vocabulary protocol; nothing
            of a novel class is in the truth.
        shapes: ``boxes`` reads no masks, for heads that look at none.
    """

    annotations: Path | None = None
    images: Path | None = None
    maps: Path | None = None
    name: str = ""
    root: Path | None = None
    split: str = ""
    truth: Literal["", "instances", "panoptic", "labels"] = ""
    vocabulary: str = ""
    part: Literal["", "base"] = ""
    shapes: Literal["masks", "boxes"] = "masks"


def open_training_images(settings: DataSettings, *, on_problem: OnProblem = "skip") -> TrainingImages:
    """Opens the data.

    Args:
        settings: which.
        on_problem: what to do with annotations of your own files that cannot be used; those of a named data
            set are always refused.

    Raises:
        InvalidParameter: the settings name no data, or two.
        MissingFile, InvalidDataset, Unsupported, NotFound: as the data set has it.
    """
    from ovperception.training.coco_targets import TrainingImages

    words = read_vocabulary(settings.vocabulary) if settings.vocabulary else None
    if settings.part:
        words = _base_classes(settings)
    dataset = _dataset(settings, words, on_problem)
    said = [truth for truth in _MOST_FIRST if truth == settings.truth]
    truth = said[0] if said else next(t for t in _MOST_FIRST if t in dataset.truths)
    return TrainingImages(dataset, truth, words, settings.shapes)


def _dataset(settings: DataSettings, words: Vocabulary | None, on_problem: OnProblem) -> Dataset:
    own = settings.images is not None and (settings.annotations is not None or settings.maps is not None)
    if own == bool(settings.name):
        raise InvalidParameter(
            "The data is not told" if not own else "Both files and the name of a data set are given",
            field="data",
            expected="images with annotations (COCO), or with maps (PNGs), or the name of a data set",
        )
    if settings.name:
        from ovperception.datasets.named import open_dataset

        return open_dataset(settings.name, settings.root, settings.split or None)
    assert settings.images is not None
    if settings.annotations is None:
        from ovperception.datasets.labelled_images import label_folder

        if words is None or settings.maps is None:
            raise InvalidParameter(
                "Label PNGs do not say what their numbers mean",
                field="vocabulary",
                expected="a list of classes in the order of the numbers",
            )
        return label_folder(settings.images, settings.maps, words)
    if settings.maps is not None:
        from ovperception.datasets.panoptic_files import panoptic_dataset

        return panoptic_dataset(settings.annotations, settings.maps, settings.images)
    from ovperception.datasets.coco import coco_dataset

    return coco_dataset(settings.annotations, settings.images, on_problem=on_problem)


def read_vocabulary(words: str) -> Vocabulary:
    """The classes of a list: one of ours by its name, or a file."""
    from ovperception.vocabulary import Vocabulary

    path = Path(words)
    return Vocabulary.from_file(path) if path.suffix or path.is_file() else Vocabulary.builtin(words)


def _base_classes(settings: DataSettings) -> Vocabulary:
    from ovperception.datasets.categories import builtin_classes
    from ovperception.datasets.named import named_dataset
    from ovperception.datasets.vocabularies import names as builtin_names
    from ovperception.datasets.vocabularies import part_of
    from ovperception.vocabulary import Vocabulary

    name = named_dataset(settings.name).vocabulary if settings.name else settings.vocabulary
    indices = part_of(name, "base") if name in builtin_names() else ()
    if not indices or (settings.name and settings.vocabulary):
        raise InvalidParameter(
            "Which classes are base classes is not known",
            field="data.part",
            expected="a data set with base and novel classes, such as ov_coco or lvis_v1, and no vocabulary",
            got=settings.name or settings.vocabulary or "files of your own",
            mend='Say part = "" to learn all classes of the data, or name those to learn in `vocabulary`',
        )
    classes = builtin_classes(name).vocabulary.classes
    return Vocabulary(classes=tuple(classes[i] for i in indices), name=f"{name}_base")
