"""The zero-shot folds of segmentation: PASCAL-5i, COCO-20i and FSS-1000, as LSeg was judged on them.

A sample is a picture and one class to find in it: it is asked with the two texts "others" and the class. Its
``asked`` names the class, its labels have that class and ``K`` (the number of classes) for everything else,
`IGNORE` along PASCAL's borders. The published numbers are: mIoU, intersections and unions of a class summed
over its samples, then the mean over the classes of the fold; FB-IoU, the mean of the IoU of foreground and
background summed over all.

::

    VOC2012/JPEGImages/, VOC2012/SegmentationClassAug/ (or SegmentationClass/)
    COCO2014/val2014/, COCO2014/annotations/instances_val2014.json
    FSS-1000/CLASS/1.jpg ... 10.jpg, 1.png ... 10.png

Folds: of PASCAL's 20 classes fold i has 5i to 5i + 4; of COCO's 80 it has i, i + 4, i + 8, ... (the lists of
HSNet, which LSeg took over). PASCAL's pictures are those lists; of COCO's LSeg drew 1,000 at random, here
all pairs of picture and class are taken, or as many as asked for, drawn by a seed of our own. FSS-1000 has
one split, of 240 classes with 10 pictures each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ovperception.datasets.categories import Classes, builtin_classes
from ovperception.datasets.coco import CocoDataset, coco_dataset
from ovperception.datasets.folders import Origin, first_there, require_file
from ovperception.datasets.label_files import read_labels
from ovperception.datasets.labelled_images import LabelledImages, LabelTable, listed_pairs
from ovperception.datasets.samples import IGNORE, ImageId, LabelMap, Sample, Truth, check_index
from ovperception.errors import InvalidParameter
from ovperception.vocabulary import Vocabulary, VocabularyClass

__all__ = [
    "COCO_DRAWS",
    "FOLDS",
    "Fold",
    "FoldSamples",
    "coco_20i",
    "coco_20i_classes",
    "fss_1000",
    "pascal_5i",
    "pascal_5i_training",
]

Fold = Literal[0, 1, 2, 3]
FOLDS: tuple[Fold, ...] = (0, 1, 2, 3)
_BORDER = 255
_FSS_FOREGROUND = 128
_VOC = Origin(
    title="PASCAL VOC 2012 with SBD's labels",
    home="http://host.robots.ox.ac.uk/pascal/VOC/voc2012; SegmentationClassAug as HSNet's README tells",
    layout="VOC2012/JPEGImages/ beside VOC2012/SegmentationClassAug/",
)
_COCO = Origin(
    title="COCO 2014",
    home="https://cocodataset.org/#download",
    layout="COCO2014/val2014/ beside COCO2014/annotations/instances_val2014.json",
)
_FSS = Origin(
    title="FSS-1000", home="https://github.com/HKUSTCV/FSS-1000", layout="FSS-1000/CLASS/1.jpg, 1.png, ..."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Episode:
    """One picture and the class to find."""

    image_id: ImageId
    image: Path
    asked: int
    read_labels: Callable[[], LabelMap]


class FoldSamples:
    """One fold, opened."""

    truths: frozenset[Truth] = frozenset(("labels",))

    def __init__(self, name: str, classes: Classes, annotations: Path, episodes: Sequence[_Episode]) -> None:
        self.name = name
        self.annotations: Path | None = annotations
        self._classes = classes
        self._episodes = tuple(episodes)
        require_file(self._episodes[0].image)

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes of the fold."""
        return self._classes.vocabulary

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The data set's id of each class."""
        return self._classes.category_ids

    def __len__(self) -> int:
        """Number of pairs of picture and class."""
        return len(self._episodes)

    def sample(self, index: int) -> Sample:
        """Pair `index`."""
        episode = self._episodes[check_index(index, len(self))]
        return Sample(
            image_id=episode.image_id,
            file_name=episode.image.name,
            path=episode.image,
            asked=(episode.asked,),
            read_labels=episode.read_labels,
        )


def pascal_5i(root: Path | str, fold: Fold) -> FoldSamples:
    """A fold of PASCAL-5i: five classes, 346, 451, 725 and 346 pairs.

    Raises:
        MissingFile: a file or folder is missing.
        InvalidParameter: no such fold.
    """
    root, whole = Path(root), builtin_classes("pascal_voc_20")
    classes = _part(whole, range(5 * _checked(fold), 5 * fold + 5), f"pascal_5i_{fold}")
    home = _voc_home(root)
    labels = first_there((home / "SegmentationClassAug", home / "SegmentationClass"), _VOC)
    episodes = []
    for row in _list("pascal_5i")["folds"][fold]:
        name, number = row.split()
        asked = classes.index[int(number)]
        read = partial(_voc_labels, labels / f"{name}.png", int(number), asked, len(classes.vocabulary))
        image = home / "JPEGImages" / f"{name}.jpg"
        episodes.append(_Episode(image_id=name, image=image, asked=asked, read_labels=read))
    return FoldSamples(f"pascal_5i_{fold}", classes, labels, episodes)


def pascal_5i_training(root: Path | str, fold: Fold) -> LabelledImages:
    """What a fold of PASCAL-5i is trained on: the fifteen classes of the other folds, a class per pixel.

    Pictures are those of ``ImageSets/Segmentation/trainaug.txt``, or of ``train.txt`` where that is missing;
    none of them is in a fold's own list. Pixels of the fold's classes, of the background and of borders are
    ignored, so that nothing is learned of the classes that the fold is judged on.

    Raises:
        MissingFile: a file or folder is missing.
        InvalidParameter: no such fold.
    """
    root, whole = Path(root), builtin_classes("pascal_voc_20")
    novel = range(5 * _checked(fold), 5 * fold + 5)
    classes = _part(whole, [i for i in range(20) if i not in novel], f"pascal_5i_{fold}_base")
    home = _voc_home(root)
    labels = first_there((home / "SegmentationClassAug", home / "SegmentationClass"), _VOC)
    lists = home / "ImageSets" / "Segmentation"
    ignored = frozenset((0, _BORDER, *(n + 1 for n in novel)))
    return LabelledImages(
        name=f"pascal_5i_{fold}_train",
        classes=classes,
        table=LabelTable(classes=dict(classes.index), ignore=ignored),
        pairs=listed_pairs(
            first_there((lists / "trainaug.txt", lists / "train.txt"), _VOC),
            home / "JPEGImages",
            labels,
            image_suffix=".jpg",
            label_suffix=".png",
            origin=_VOC,
        ),
        annotations=labels,
    )


def _voc_home(root: Path) -> Path:
    home = first_there((root / "VOC2012", root / "VOCdevkit" / "VOC2012", root / "JPEGImages"), _VOC)
    return root if home.name == "JPEGImages" else home


COCO_DRAWS = 1_000
"""Episodes of a fold of COCO-20i that papers take the mean of, by a seed of their own."""


def coco_20i_classes(fold: Fold) -> Classes:
    """The 20 classes of a fold of COCO-20i.

    Raises:
        InvalidParameter: no such fold.
    """
    return _part(builtin_classes("coco_80"), range(_checked(fold), 80, 4), f"coco_20i_{fold}")


def coco_20i(root: Path | str, fold: Fold, *, episodes: int | None = None, seed: int = 0) -> FoldSamples:
    """A fold of COCO-20i: every picture of val2014 with every class of the fold that it shows.

    Args:
        root: the folder with COCO2014, or with val2014 itself.
        fold: 0 to 3.
        episodes: draw so many pairs, a class first and then one of its pictures; None takes each pair once.
        seed: of the drawing.

    Raises:
        MissingFile: a file or folder is missing.
        InvalidDataset: the file is broken.
        InvalidParameter: no such fold.
    """
    root, classes = Path(root), coco_20i_classes(fold)
    home = first_there((root / "COCO2014" / "val2014", root / "val2014"), _COCO).parent
    path = first_there(
        (home / "annotations" / "instances_val2014.json", home / "instances_val2014.json"), _COCO
    )
    truth = coco_dataset(
        path, home / "val2014", known=classes, others="drop", keep="with_objects", origin=_COCO
    )
    pairs = _coco_pairs(truth)
    if episodes is not None:
        pairs = _drawn(pairs, episodes, seed)
    found = []
    for index, asked in pairs:
        sample = truth.sample(index)
        assert sample.path is not None
        read = partial(_coco_labels, truth, index, asked)
        found.append(_Episode(image_id=sample.image_id, image=sample.path, asked=asked, read_labels=read))
    return FoldSamples(f"coco_20i_{fold}", classes, path, found)


def fss_1000(root: Path | str, split: Literal["train", "val", "test"] = "test") -> FoldSamples:
    """FSS-1000: 520, 240 and 240 classes of 10 pictures; test is the split of its makers.

    Raises:
        MissingFile: a file or folder is missing.
    """
    root = Path(root)
    home = first_there((root / "FSS-1000", root / "fewshot_data", root), _FSS)
    first = {"train": 0, "val": 520, "test": 760}[split]
    names = _list("fss_1000")[split]
    classes = Classes(
        vocabulary=Vocabulary(
            classes=tuple(VocabularyClass(name=n, synonyms=(n.replace("_", " "),)) for n in names),
            name=f"fss_1000_{split}",
        ),
        category_ids=tuple(range(first, first + len(names))),
    )
    found = []
    for asked, name in enumerate(names):
        for number in range(1, 11):
            image, mask = (home / name / f"{number}.{ending}" for ending in ("jpg", "png"))
            require_file(mask, _FSS)
            read = partial(_fss_labels, mask, asked, len(names))
            found.append(_Episode(image_id=f"{name}/{number}", image=image, asked=asked, read_labels=read))
    return FoldSamples(f"fss_1000_{split}", classes, home, found)


def _voc_labels(path: Path, number: int, asked: int, others: int) -> LabelMap:
    raw = read_labels(path)
    return _labels(raw == number, asked, others, ignored=raw == _BORDER)


def _fss_labels(path: Path, asked: int, others: int) -> LabelMap:
    raw = read_labels(path)
    return _labels(raw >= _FSS_FOREGROUND, asked, others)


def _coco_labels(truth: CocoDataset, index: int, asked: int) -> LabelMap:
    sample = truth.sample(index)
    found = sample.instances()
    assert sample.size is not None
    inside = np.zeros(sample.size, np.bool_)
    for n in np.flatnonzero(found.classes == asked).tolist():
        inside |= found.masks[n].decode().astype(np.bool_)
    return _labels(inside, asked, len(truth.vocabulary))


def _labels(
    inside: NDArray[np.bool_], asked: int, others: int, ignored: NDArray[np.bool_] | None = None
) -> LabelMap:
    labels = np.where(inside, asked, others).astype(np.int32)
    if ignored is not None:
        labels[ignored] = IGNORE
    return labels


def _coco_pairs(truth: CocoDataset) -> list[tuple[int, int]]:
    """(sample, class) of all classes with an object that is no crowd."""
    pairs = []
    for index in range(len(truth)):
        found = truth.sample(index).instances()
        pairs += [(index, asked) for asked in sorted(set(found.classes[~found.crowd].tolist()))]
    return pairs


def _drawn(pairs: Sequence[tuple[int, int]], count: int, seed: int) -> list[tuple[int, int]]:
    of_class: dict[int, list[int]] = {}
    for index, asked in pairs:
        of_class.setdefault(asked, []).append(index)
    rng = np.random.Generator(np.random.PCG64(seed))
    asked_for = rng.choice(sorted(of_class), count).tolist()
    return [(int(rng.choice(of_class[asked])), asked) for asked in asked_for]


def _part(whole: Classes, indices: Sequence[int], name: str) -> Classes:
    words = tuple(whole.vocabulary.classes[i] for i in indices)
    return Classes(
        vocabulary=Vocabulary(classes=words, name=name),
        category_ids=tuple(whole.category_ids[i] for i in indices),
    )


def _checked(fold: int) -> int:
    if fold not in FOLDS:
        raise InvalidParameter("There is no such fold", field="fold", expected="0, 1, 2 or 3", got=fold)
    return fold


@cache
def _list(name: str) -> Any:
    path = files("ovperception").joinpath("datasets", "fold_lists", f"{name}.json")
    return json.loads(path.read_text(encoding="utf-8"))
