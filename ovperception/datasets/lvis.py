"""LVIS v1 and v0.5 on the pictures of COCO.

::

    ROOT/annotations/lvis_v1_val.json (or ROOT/, or ROOT/lvis/)
    ROOT/train2017/*.jpg, ROOT/val2017/*.jpg (or under ROOT/coco/)

LVIS splits COCO anew: its val has pictures of both of COCO's folders. The minival of MDETR and GLIP is those
of val that lie in COCO's val2017, 4,809 pictures; their own file of it is read where it is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ovperception.datasets.categories import Classes, builtin_classes
from ovperception.datasets.coco import CocoDataset, coco_dataset
from ovperception.datasets.folders import Origin, first_there
from ovperception.errors import InvalidParameter

__all__ = ["LVIS", "LvisSplit", "lvis_v05", "lvis_v1"]

LvisSplit = Literal["train", "val", "minival"]
LVIS = Origin(
    title="LVIS",
    home="https://www.lvisdataset.org/dataset",
    layout="annotations/lvis_v1_val.json beside COCO's train2017/ and val2017/",
)
_MINIVAL_FILES = ("lvis_v1_minival_inserted_image_name.json", "lvis_v1_minival.json")


def lvis_v1(root: Path | str, split: LvisSplit = "val") -> CocoDataset:
    """LVIS v1, 1203 classes; base and novel of OV-LVIS are told by ``split`` of the class list.

    Raises:
        MissingFile: a file is missing.
        InvalidDataset: the file is broken.
        InvalidParameter: no such split.
    """
    if split not in ("train", "val", "minival"):
        raise InvalidParameter(
            "There is no such split", field="split", expected="train, val or minival", got=split
        )
    root, wanted = Path(root), "train" if split == "train" else "val"
    candidates = _places(root, f"lvis_v1_{wanted}.json")
    if split == "minival":
        official = [path for name in _MINIVAL_FILES for path in _places(root, name) if path.is_file()]
        candidates = (*official, *candidates)
    return _opened(root, candidates, f"lvis_v1_{split}", "lvis_v1_1203", minival=split == "minival")


def lvis_v05(root: Path | str, split: Literal["train", "val"] = "val") -> CocoDataset:
    """LVIS v0.5, 1230 classes, all pictures from COCO's train2017 and val2017.

    Raises:
        MissingFile: a file is missing.
        InvalidDataset: the file is broken.
    """
    root = Path(root)
    candidates = _places(root, f"lvis_v0.5_{split}.json")
    return _opened(root, candidates, f"lvis_v0.5_{split}", "lvis_v0.5_1230", minival=False)


def _places(root: Path, name: str) -> tuple[Path, ...]:
    return tuple(folder / name for folder in (root / "annotations", root, root / "lvis"))


def _opened(
    root: Path, candidates: tuple[Path, ...], name: str, classes: str, *, minival: bool
) -> CocoDataset:
    known: Classes = builtin_classes(classes)
    images = root / "coco" if (root / "coco" / "val2017").is_dir() else root
    return coco_dataset(
        first_there(candidates, LVIS),
        images,
        name=name,
        known=known,
        by_address=True,
        folder_of_images="val2017/" if minival else "",
        origin=LVIS,
    )
