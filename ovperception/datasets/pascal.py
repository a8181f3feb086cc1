"""PASCAL VOC 2012 (20, 21, 20b) and PASCAL Context (59, 60, 459).

::

    ROOT/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt, JPEGImages/, SegmentationClass/
    ROOT/pascal_ctx_d2/images/validation/, annotations_ctx59/validation/*.png,
                       annotations_ctx459/validation/*.tif         as FC-CLIP prepares it
    ROOT/VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt, JPEGImages/,
                       SegmentationClassContext/*.png              as mmsegmentation has 59 and 60
    ROOT/VOCdevkit/VOC2010/trainval/*.mat                          the original 459

What the background is makes the difference between the forms: 20 does not judge it, 21 has it as class 0
with a list of words, 20b as the last class, which stands for every name of PASCAL Context 59 that VOC lacks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ovperception.datasets.categories import builtin_classes
from ovperception.datasets.folders import Origin, first_there
from ovperception.datasets.labelled_images import LabelledImages, LabelTable, Pair, folder_pairs, listed_pairs

__all__ = ["pascal_context", "pascal_voc", "voc_20b_of_context"]

_VOC = Origin(
    title="PASCAL VOC 2012",
    home="http://host.robots.ox.ac.uk/pascal/VOC/voc2012",
    layout="VOCdevkit/VOC2012/JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/",
)
_CONTEXT = Origin(
    title="PASCAL Context",
    home="https://www.cs.stanford.edu/~roozbeh/pascal-context (pictures: PASCAL VOC 2010)",
    layout="pascal_ctx_d2/ as FC-CLIP prepares it, or VOCdevkit/VOC2010/SegmentationClassContext/",
)
_BORDER = 255


def pascal_voc(
    root: Path | str, form: Literal["20", "21", "20b"] = "20", *, split: Literal["train", "val"] = "val"
) -> LabelledImages:
    """PASCAL VOC 2012 segmentation.

    Raises:
        MissingFile: a file or folder is missing.
    """
    root = Path(root)
    home = first_there((root / "VOCdevkit" / "VOC2012", root / "VOC2012", root / "JPEGImages"), _VOC)
    home = root if home.name == "JPEGImages" else home
    labels = home / "SegmentationClass"
    objects = {n: n - 1 for n in range(1, 21)}
    table = {
        "20": LabelTable(classes=objects, ignore=frozenset((0, _BORDER))),
        "21": LabelTable.of(range(21), _BORDER),
        "20b": LabelTable(classes=objects | {0: 20}, ignore=frozenset((_BORDER,))),
    }[form]
    return LabelledImages(
        name=f"pascal_voc_{form}_{split}",
        classes=builtin_classes(f"pascal_voc_{form}"),
        table=table,
        pairs=listed_pairs(
            home / "ImageSets" / "Segmentation" / f"{split}.txt",
            home / "JPEGImages",
            labels,
            image_suffix=".jpg",
            label_suffix=".png",
            origin=_VOC,
        ),
        annotations=labels,
    )


def pascal_context(
    root: Path | str, form: Literal["59", "60", "459"] = "59", *, split: Literal["train", "val"] = "val"
) -> LabelledImages:
    """PASCAL Context; 59 does not judge the background, 60 has it as class 0.

    Raises:
        MissingFile: a file or folder is missing.
    """
    root = Path(root)
    pairs, labels, first = _context_pairs(root, form, split)
    count = int(form)
    void = 65535 if form == "459" else _BORDER
    if form == "60":
        # Prepared files keep the background as the ignored number, mmsegmentation's as 0.
        classes = {first + n: n + 1 for n in range(59)} | {void if first == 0 else 0: 0}
        table = LabelTable(classes=classes, ignore=frozenset() if first == 0 else frozenset((void,)))
    else:
        table = LabelTable.of(range(first, first + count), void, *range(first))
    return LabelledImages(
        name=f"pascal_context_{form}_{split}",
        classes=builtin_classes(f"pascal_context_{form}"),
        table=table,
        pairs=pairs,
        annotations=labels,
    )


def _context_pairs(root: Path, form: str, split: str) -> tuple[tuple[Pair, ...], Path, int]:
    """The pairs, the folder of the labels, and the number that stands for the first class there."""
    long_split = {"train": "training", "val": "validation"}[split]
    name, suffix = ("annotations_ctx459", ".tif") if form == "459" else ("annotations_ctx59", ".png")
    voc = first_there(
        (root / "pascal_ctx_d2", root / name, root / "VOCdevkit" / "VOC2010", root / "VOC2010"), _CONTEXT
    )
    if voc.name == name or voc.name == "pascal_ctx_d2":
        home = root if voc.name == name else voc
        labels = home / name / long_split
        pairs = folder_pairs(
            home / "images" / long_split, labels, image_suffix=".jpg", label_suffix=suffix, origin=_CONTEXT
        )
        return pairs, labels, 0
    labels, suffix = (
        (voc / "trainval", ".mat") if form == "459" else (voc / "SegmentationClassContext", ".png")
    )
    names = voc / "ImageSets" / "SegmentationContext" / f"{split}.txt"
    pairs = listed_pairs(
        names, voc / "JPEGImages", labels, image_suffix=".jpg", label_suffix=suffix, origin=_CONTEXT
    )
    return pairs, labels, 1


def voc_20b_of_context() -> tuple[int, ...]:
    """The class of VOC-20b that each of the 59 names of PASCAL Context stands for; 20 is the background."""
    voc = {name: i for i, name in enumerate(builtin_classes("pascal_voc_20").vocabulary.names)}
    return tuple(voc.get(name, 20) for name in builtin_classes("pascal_context_59").vocabulary.names)
