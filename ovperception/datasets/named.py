"""The data sets by name: what ``--data NAME --root DIR`` opens."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ovperception.datasets import ade20k, cityscapes, coco_sets, folds, lvis, mapillary, objects365, pascal
from ovperception.datasets.samples import Dataset
from ovperception.datasets.scene_sets import DrawnScenes, scenes_folder
from ovperception.errors import InvalidParameter, NotFound

__all__ = ["NamedDataset", "dataset_names", "named_dataset", "open_dataset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDataset:
    """A data set that can be opened by its name.

    Attributes:
        name: as asked for.
        vocabulary: name of its class list.
        images: pictures of the usual split; None where it has no fixed number.
        splits: names of the splits, the usual one first.
        open: opens a split of it under a root.
        needs_root: False for what is drawn, not read.
    """

    name: str
    vocabulary: str
    images: int | None
    splits: tuple[str, ...]
    open: Callable[[Path, str], Dataset]
    needs_root: bool = True


def _entries() -> Mapping[str, NamedDataset]:
    coco, ade = ("val", "train"), ("validation", "training")
    rows: list[tuple[str, str, int | None, tuple[str, ...], Callable[..., Dataset]]] = [
        ("coco", "coco_80", 5000, coco, coco_sets.coco_instances),
        ("ov_coco", "ov_coco_48_17", None, coco, coco_sets.ov_coco),
        ("coco_panoptic", "coco_panoptic_133", 5000, coco, coco_sets.coco_panoptic),
        ("coco_stuff", "coco_stuff_171", 5000, coco, coco_sets.coco_stuff),
        ("coco_object", "coco_object_81", 5000, coco, coco_sets.coco_object),
        ("lvis_v1", "lvis_v1_1203", 19809, ("val", "minival", "train"), lvis.lvis_v1),
        ("lvis_v0.5", "lvis_v0.5_1230", 5000, coco, lvis.lvis_v05),
        ("objects365_v2", "objects365_365", None, coco, _objects365_v2),
        ("objects365_v1", "", None, coco, _objects365_v1),
        ("ade20k_150", "ade20k_150", 2000, ade, ade20k.ade20k_150),
        ("ade20k_150_panoptic", "ade20k_150", 2000, ade, ade20k.ade20k_150_panoptic),
        ("ade20k_847", "ade20k_847", 2000, ade, ade20k.ade20k_847),
        ("cityscapes", "cityscapes_19", 500, coco, cityscapes.cityscapes),
        ("mapillary", "mapillary_65", 2000, ade, mapillary.mapillary),
        ("mapillary_panoptic", "mapillary_65", 2000, ade, mapillary.mapillary_panoptic),
        *(
            (f"pascal_voc_{form}", f"pascal_voc_{form}", 1449, coco, partial(_voc, form))
            for form in ("20", "21", "20b")
        ),
        *(
            (f"pascal_context_{form}", f"pascal_context_{form}", 5104, coco, partial(_context, form))
            for form in ("59", "60", "459")
        ),
        *(
            (f"pascal_5i_{fold}", "pascal_voc_20", None, ("test", "train"), partial(_pascal_5i, fold))
            for fold in folds.FOLDS
        ),
        *(
            (f"coco_20i_{fold}", "coco_80", None, ("draws", "all"), partial(_coco_20i, fold))
            for fold in folds.FOLDS
        ),
        ("fss_1000", "", 2400, ("test", "val", "train"), folds.fss_1000),
        *(
            (f"scenes_{form}", "scenes", None, ("folder",), partial(_scenes_folder, form))
            for form in ("instances", "panoptic", "lvis", "ade")
        ),
    ]
    found = {
        name: NamedDataset(name=name, vocabulary=words, images=images, splits=splits, open=opener)
        for name, words, images, splits, opener in rows
    }
    found["scenes"] = NamedDataset(
        name="scenes",
        vocabulary="scenes",
        images=500,
        splits=("val", "test", "train"),
        open=_scenes,
        needs_root=False,
    )
    return found


def dataset_names() -> tuple[str, ...]:
    """The names, sorted."""
    return tuple(sorted(_DATASETS))


def named_dataset(name: str) -> NamedDataset:
    """What is known of a data set before it is opened.

    Raises:
        NotFound: no data set of this name; the message has the nearest ones.
    """
    found = _DATASETS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, _DATASETS, n=3, cutoff=0.5)
        raise NotFound(
            "There is no such data set",
            field="data",
            expected=f"one of {', '.join(near or dataset_names())}",
            got=repr(name),
            mend="Any COCO-format file or folder of label PNGs can be opened by its path",
        )
    return found


def open_dataset(name: str, root: Path | str | None = None, split: str | None = None) -> Dataset:
    """Opens a data set.

    Args:
        name: one of `dataset_names`.
        root: where its files lie; not needed for ``scenes``.
        split: one of its splits; None for the usual one.

    Raises:
        NotFound: no data set of this name.
        InvalidParameter: no such split, or no root for what is read from files.
        MissingFile: files are missing; the message says where to get them.
        InvalidDataset: a file is broken.
    """
    entry = named_dataset(name)
    chosen = entry.splits[0] if split is None else split
    if chosen not in entry.splits:
        raise InvalidParameter(
            f"{name} has no such split",
            field="split",
            expected=f"one of {', '.join(entry.splits)}",
            got=chosen,
        )
    if root is None and entry.needs_root:
        raise InvalidParameter(
            f"{name} is read from files", field="root", expected="the folder it was unpacked in", got="none"
        )
    return entry.open(Path(root or ""), chosen)


def _objects365_v2(root: Path, split: str) -> Dataset:
    return objects365.objects365(root, "v2", split=split)


def _objects365_v1(root: Path, split: str) -> Dataset:
    return objects365.objects365(root, "v1", split=split)


def _voc(form: str, root: Path, split: str) -> Dataset:
    return pascal.pascal_voc(root, form, split=split)  # type: ignore[arg-type]


def _context(form: str, root: Path, split: str) -> Dataset:
    return pascal.pascal_context(root, form, split=split)  # type: ignore[arg-type]


def _pascal_5i(fold: folds.Fold, root: Path, split: str) -> Dataset:
    return folds.pascal_5i_training(root, fold) if split == "train" else folds.pascal_5i(root, fold)


def _coco_20i(fold: folds.Fold, root: Path, split: str) -> Dataset:
    return folds.coco_20i(root, fold, episodes=folds.COCO_DRAWS if split == "draws" else None)


def _scenes_folder(form: str, root: Path, _split: str) -> Dataset:
    return scenes_folder(root, form)  # type: ignore[arg-type]


def _scenes(_root: Path, split: str) -> Dataset:
    return DrawnScenes(split)  # type: ignore[arg-type]


_DATASETS = _entries()
