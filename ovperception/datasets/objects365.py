"""Objects365 in COCO format, for transfer: v2 by Detic's corrected names, v1 by the file's own.

::

    ROOT/annotations/zhiyuan_objv2_val.json (v2) or objects365_val.json (v1)
    ROOT/val/*.jpg, or as the file names say

The releases number their categories in different ways; a report must say which one it is of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ovperception.datasets.categories import builtin_classes
from ovperception.datasets.coco import CocoDataset, coco_dataset
from ovperception.datasets.folders import Origin, first_there

__all__ = ["OBJECTS365", "objects365"]

OBJECTS365 = Origin(
    title="Objects365",
    home="https://www.objects365.org",
    layout="annotations/zhiyuan_objv2_val.json (v2) or annotations/objects365_val.json (v1) beside val/",
)


def objects365(root: Path | str, version: Literal["v1", "v2"] = "v2", *, split: str = "val") -> CocoDataset:
    """Opens a split.

    Raises:
        MissingFile: a file is missing.
        InvalidDataset: the file is broken, or of the other release.
    """
    root = Path(root)
    name = f"zhiyuan_objv2_{split}.json" if version == "v2" else f"objects365_{split}.json"
    return coco_dataset(
        first_there((root / "annotations" / name, root / name), OBJECTS365),
        first_there((root / split, root / "images" / split, root), OBJECTS365),
        name=f"objects365_{version}_{split}",
        known=builtin_classes("objects365_365") if version == "v2" else None,
        origin=OBJECTS365,
    )
