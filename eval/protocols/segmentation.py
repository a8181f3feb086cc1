"""Protocols of maps: semantic and panoptic, trained on COCO or training-free, and the zero-shot folds."""

from __future__ import annotations

from collections.abc import Iterator

from eval.protocols.protocol import (
    PQ,
    Background,
    EvaluationProtocol,
    FewShot,
    MeanIoU,
    Resolution,
    Window,
)

__all__ = ["segmentation_protocols"]

_FC_CLIP = ("github:bytedance/fc-clip@2b0bbe2",)
_LARGE = Resolution(shortest_edge=800, longest_edge=1333)
_STREET = Resolution(shortest_edge=1024, longest_edge=2560)
_ALL_JUDGED = Background()
_NOT_JUDGED = Background(rule="not_judged")
_IS_CLASS = Background(rule="class")
_VOID_AND_CROWD = "void; unmatched segments that lie by more than half on void or on a crowd of their class"


def segmentation_protocols() -> Iterator[EvaluationProtocol]:
    """All of them."""
    yield from _semantic()
    yield from _panoptic()
    yield from _training_free()
    yield from _folds()


def _semantic() -> Iterator[EvaluationProtocol]:
    """FC-CLIP's table, which the open-vocabulary papers that train on COCO share."""
    yield _map("ade20k_150", split="validation", ignore="PNG value 0")
    yield _map("ade20k_847", split="validation", ignore="65535")
    yield _map("pascal_context_59", background=_NOT_JUDGED, ignore="background, 255")
    yield _map(
        "pascal_context_459",
        ignore="65535 (0 in the original files)",
        notes="345 of the 459 classes occur in val: the averaging rules differ here",
    )
    yield _map(
        "pascal_voc_20",
        background=_NOT_JUDGED,
        ignore="background, 255",
        notes="easy: saturates above 95, no headline",
    )
    yield _map("pascal_voc_21", background=_IS_CLASS, ignore="255", notes="72 words stand for the background")
    yield _map(
        "cityscapes_semantic",
        data="cityscapes",
        vocabulary="cityscapes_19",
        ignore="train id 255",
        resolution=_STREET,
    )
    yield _map(
        "mapillary_semantic",
        data="mapillary",
        split="validation",
        vocabulary="mapillary_65",
        ignore="label 65",
        resolution=_STREET,
    )
    yield _map(
        "coco_stuff",
        vocabulary="coco_stuff_171",
        ignore="255",
        notes="pixel maps of the 164k release",
    )
    yield _map(
        "coco_semantic",
        data="coco_panoptic",
        vocabulary="coco_panoptic_133",
        ignore="void",
        notes="labels derived from the panoptic maps; FC-CLIP's training classes",
    )
    yield EvaluationProtocol(
        name="pascal_voc_20b",
        title="PASCAL VOC 20 and background, asked with the names of PASCAL Context 59 (OVSeg, CAT-Seg)",
        data="pascal_voc_20b",
        split="val",
        vocabulary="pascal_voc_20b",
        asked="pascal_context_59",
        templates="vild_14",
        task="semantic",
        metric=MeanIoU(),
        headline="mIoU",
        background=Background(rule="other_names"),
        ignore="255",
        resolution=_LARGE,
        source=("github:cvlab-kaist/CAT-Seg",),
        notes="answers of the 39 names that VOC lacks count as background",
    )


def _map(
    name: str,
    *,
    ignore: str,
    data: str = "",
    split: str = "val",
    vocabulary: str = "",
    background: Background = _ALL_JUDGED,
    resolution: Resolution = _LARGE,
    notes: str = "",
) -> EvaluationProtocol:
    """A row of the table; data and vocabulary are called as the protocol is, unless told."""
    return EvaluationProtocol(
        name=name,
        title=f"{data or name}, one class a pixel",
        data=data or name,
        split=split,
        vocabulary=vocabulary or name,
        templates="vild_14",
        task="semantic",
        metric=MeanIoU(averaging="detectron2"),
        headline="mIoU",
        background=background,
        ignore=ignore,
        resolution=resolution,
        source=_FC_CLIP,
        notes=notes,
    )


def _panoptic() -> Iterator[EvaluationProtocol]:
    rows = (
        ("coco_panoptic", "coco_panoptic", "val", "coco_panoptic_133", _LARGE),
        ("ade20k_150_panoptic", "ade20k_150_panoptic", "validation", "ade20k_150", _LARGE),
        ("cityscapes_panoptic", "cityscapes", "val", "cityscapes_19", _STREET),
        ("mapillary_panoptic", "mapillary_panoptic", "validation", "mapillary_65", _STREET),
    )
    for name, data, split, vocabulary, resolution in rows:
        yield EvaluationProtocol(
            name=name,
            title=f"{data}, things and stuff",
            data=data,
            split=split,
            vocabulary=vocabulary,
            templates="vild_14",
            task="panoptic",
            metric=PQ(),
            headline="PQ",
            groups=("things", "stuff"),
            ignore=_VOID_AND_CROWD,
            resolution=resolution,
            source=(*_FC_CLIP, "github:cocodataset/panopticapi@7bb4655"),
        )


def _training_free() -> Iterator[EvaluationProtocol]:
    """The eight columns of ProxyCLIP, Trident and others, by mmsegmentation."""
    small, wide = Resolution(shortest_edge=336), Resolution(shortest_edge=448)
    rows = (
        (
            "voc21",
            "pascal_voc_21",
            "val",
            "pascal_voc_21_plain",
            Background(rule="threshold", threshold=0.2),
            "255",
        ),
        (
            "context60",
            "pascal_context_60",
            "val",
            "pascal_context_60",
            Background(rule="threshold", threshold=0.15),
            "255",
        ),
        (
            "object",
            "coco_object",
            "val",
            "coco_object_81",
            Background(rule="threshold", threshold=0.25),
            "nothing: unlabelled is background",
        ),
        ("voc20", "pascal_voc_20", "val", "pascal_voc_20", _NOT_JUDGED, "background, 255"),
        ("context59", "pascal_context_59", "val", "pascal_context_59", _NOT_JUDGED, "background, 255"),
        ("stuff", "coco_stuff", "val", "coco_stuff_171", Background(), "255"),
        ("cityscapes", "cityscapes", "val", "cityscapes_19", Background(), "255"),
        ("ade", "ade20k_150", "validation", "ade20k_150", Background(), "PNG value 0"),
    )
    for short, data, split, vocabulary, background, ignore in rows:
        street = short == "cityscapes"
        yield EvaluationProtocol(
            name=f"training_free_{short}",
            title=f"{data}, training-free family",
            data=data,
            split=split,
            vocabulary=vocabulary,
            templates="openai_imagenet_80",
            task="semantic",
            metric=MeanIoU(averaging="mmseg"),
            headline="mIoU",
            background=background,
            ignore=ignore,
            resolution=wide if street else small,
            window=Window(size=224 if street else 336, stride=112),
            source=("github:mc-lan/ProxyCLIP@05c3c18:configs",),
            notes="sizes, windows and word lists differ between papers; PAMR, if used, is another row",
        )


def _folds() -> Iterator[EvaluationProtocol]:
    rows = [
        (f"pascal_5i_{fold}", f"PASCAL-5i, fold {fold}", "255, the borders of objects") for fold in range(4)
    ]
    rows += [(f"coco_20i_{fold}", f"COCO-20i, fold {fold}", "nothing") for fold in range(4)]
    rows += [("fss_1000", "FSS-1000, 240 test classes", "nothing")]
    for name, title, ignore in rows:
        yield EvaluationProtocol(
            name=name,
            title=f"{title}: one class in one picture, zero-shot",
            data=name,
            split="draws" if name.startswith("coco") else "test",
            vocabulary="the classes of the fold",
            templates="none",
            task="semantic",
            metric=FewShot(),
            headline="mIoU",
            background=Background(rule="class"),
            ignore=ignore,
            resolution=Resolution(shortest_edge=480, square=True),
            source=("github:isl-org/lang-seg@bb00b21:fewshot_data, test_lseg_zs.py",),
            notes='asked with "others" and the class; LSeg compares masks at 480 x 480'
            + ("; 1,000 pairs, drawn; --split all takes all" if name.startswith("coco") else ""),
        )
