"""Protocols of boxes and masks: COCO, OV-COCO, LVIS, OV-LVIS, transfer."""

from __future__ import annotations

from collections.abc import Iterator

from eval.metrics.ap_engine import IoUKind
from eval.protocols.protocol import AP, EvaluationProtocol, Resolution
from ovperception.datasets.vocabularies.files import Part

__all__ = ["detection_protocols"]

_COCO_SOURCE = ("github:ppwwyyxx/cocoapi (pycocotools 2.0.11)",)
_OV_COCO_SOURCE = (
    "OVR-CNN's split; github:microsoft/RegionCLIP:detectron2/evaluation/coco_evaluation.py",
    "github:facebookresearch/Detic:detic/evaluation/custom_coco_eval.py",
)
_LVIS_SOURCE = ("github:lvis-dataset/lvis-api (0.5.3)",)
_FIXED_SOURCE = ("github:achalddave/large-vocab-devil", *_LVIS_SOURCE)
_CROWD = "crowd regions; what matches them is not counted"
_STREET = "void, groups and objects below 100 pixels; what lies on them more than the overlap is not counted"
_STREET_SCRIPT = (
    "github:mcordts/cityscapesScripts:cityscapesscripts/evaluation/evalInstanceLevelSemanticLabeling.py"
)
_FEDERATED = (
    "classes neither present nor listed as absent in an image; false positives of classes that are not"
    " exhaustively annotated there"
)
_KINDS: tuple[IoUKind, ...] = ("bbox", "segm")
_WHAT = {"bbox": "boxes", "segm": "masks"}
_SUFFIX = {"bbox": "box", "segm": "mask"}


def detection_protocols() -> Iterator[EvaluationProtocol]:
    """All of them."""
    yield from _coco()
    yield from _ov_coco()
    yield from _lvis()
    yield from _transfer()
    yield from _instances_of_one_head()


def _coco() -> Iterator[EvaluationProtocol]:
    for iou in _KINDS:
        yield EvaluationProtocol(
            name=f"coco_{_SUFFIX[iou]}",
            title=f"COCO detection, {_WHAT[iou]}",
            data="coco",
            split="val",
            vocabulary="coco_80",
            task="detect",
            metric=AP(kind="coco", iou=iou),
            headline="AP",
            ignore=_CROWD,
            source=_COCO_SOURCE,
            notes="'zero-shot' means that no image of COCO's train split was trained on",
        )


def _ov_coco() -> Iterator[EvaluationProtocol]:
    yield EvaluationProtocol(
        name="ov_coco",
        title="OV-COCO, generalized: 48 base and 17 novel classes at once",
        data="ov_coco",
        split="val",
        vocabulary="ov_coco_48_17",
        task="detect",
        metric=AP(kind="coco", iou="bbox", generalized=True),
        headline="AP50_novel",
        groups=("base", "novel"),
        ignore=_CROWD,
        source=_OV_COCO_SOURCE,
        notes="trained on boxes of the base classes alone; images with one of the 65 classes",
    )
    parts: tuple[Part, ...] = ("base", "novel")
    for part in parts:
        yield EvaluationProtocol(
            name=f"ov_coco_{part}_only",
            title=f"OV-COCO, constrained: the {part} names alone",
            data="ov_coco",
            split="val",
            vocabulary="ov_coco_48_17",
            asked_part=part,
            task="detect",
            metric=AP(kind="coco", iou="bbox", generalized=False),
            headline=f"AP50_{part}",
            groups=(part,),
            ignore=_CROWD,
            source=_OV_COCO_SOURCE,
            notes="older papers; higher than the generalized numbers, never beside them",
        )


def _lvis() -> Iterator[EvaluationProtocol]:
    for split, where in (("val", ""), ("minival", "_minival")):
        for iou in _KINDS:
            for fixed in (False, True):
                yield _lvis_row(f"lvis{where}", split, iou, fixed)
    for iou in _KINDS:
        yield EvaluationProtocol(
            name=f"ov_lvis_{_SUFFIX[iou]}",
            title=f"OV-LVIS, {_WHAT[iou]}: base are the common and frequent classes, novel the rare",
            data="lvis_v1",
            split="val",
            vocabulary="lvis_v1_1203",
            task="detect",
            metric=AP(kind="lvis", iou=iou, max_detections=300, generalized=True),
            headline="APr",
            groups=("r", "c", "f"),
            ignore=_FEDERATED,
            source=("ViLD's split", *_LVIS_SOURCE),
            notes="trained without annotations of rare classes; the field's headline is of masks",
        )
        yield EvaluationProtocol(
            name=f"lvis_v0.5_{_SUFFIX[iou]}",
            title=f"LVIS v0.5, {_WHAT[iou]}",
            data="lvis_v0.5",
            split="val",
            vocabulary="lvis_v0.5_1230",
            task="detect",
            metric=AP(kind="lvis", iou=iou, max_detections=300),
            headline="AP",
            groups=("r", "c", "f"),
            ignore=_FEDERATED,
            source=_LVIS_SOURCE,
        )


def _lvis_row(prefix: str, split: str, iou: IoUKind, fixed: bool) -> EvaluationProtocol:
    return EvaluationProtocol(
        name=f"{prefix}_{_SUFFIX[iou]}{'_fixed' if fixed else ''}",
        title=f"LVIS v1 {split}, {_WHAT[iou]}, {'fixed' if fixed else 'standard'} AP",
        data="lvis_v1",
        split=split,
        vocabulary="lvis_v1_1203",
        task="detect",
        metric=AP(kind="lvis", iou=iou, fixed=fixed, max_detections=None if fixed else 300),
        headline="AP",
        groups=("r", "c", "f"),
        ignore=_FEDERATED,
        source=_FIXED_SOURCE if fixed else _LVIS_SOURCE,
        notes="4,809 images that lie in COCO val2017 (MDETR, GLIP)" if split == "minival" else "",
    )


def _transfer() -> Iterator[EvaluationProtocol]:
    rows = (
        ("transfer_coco", "coco", "coco_80", "COCO"),
        ("transfer_objects365_v1", "objects365_v1", "", "Objects365 v1"),
        ("transfer_objects365_v2", "objects365_v2", "objects365_365", "Objects365 v2"),
    )
    for name, data, vocabulary, title in rows:
        yield EvaluationProtocol(
            name=name,
            title=f"Transfer of a model trained on LVIS base classes to {title}",
            data=data,
            split="val",
            vocabulary=vocabulary or "the file's own categories",
            task="detect",
            metric=AP(kind="coco", iou="bbox"),
            headline="AP",
            ignore=_CROWD,
            source=("F-VLM, RO-ViT, DITO and CLIPSelf papers",),
            notes="the text is exchanged, nothing is fine-tuned; papers use Objects365 v1",
        )


def _instances_of_one_head() -> Iterator[EvaluationProtocol]:
    """Instances read off the head that also gives segments and maps (FC-CLIP)."""
    rows = (
        (
            "ade20k_150_instance",
            "ade20k_150_panoptic",
            "validation",
            "ade20k_150",
            Resolution(shortest_edge=800, longest_edge=1333),
            "",
        ),
        (
            "cityscapes_instance",
            "cityscapes",
            "val",
            "cityscapes_19",
            Resolution(shortest_edge=1024, longest_edge=2560),
            "by Cityscapes' own rules, as papers quote; `:mask` are COCO's over the same answers",
        ),
        (
            "coco_instance_133",
            "coco_panoptic",
            "val",
            "coco_panoptic_133",
            Resolution(shortest_edge=800, longest_edge=1333),
            "all 133 names asked, the 80 things judged",
        ),
    )
    for name, data, split, vocabulary, resolution, notes in rows:
        sources = (_STREET_SCRIPT,) if data == "cityscapes" else ()
        yield EvaluationProtocol(
            name=name,
            title=f"{data} instances, masks of its things",
            data=data,
            split=split,
            vocabulary=vocabulary,
            templates="vild_14",
            task="detect",
            metric=AP(kind="cityscapes" if data == "cityscapes" else "coco", iou="segm"),
            headline="AP",
            groups=("things",),
            ignore=_STREET if data == "cityscapes" else _CROWD,
            resolution=resolution,
            source=("github:bytedance/fc-clip@2b0bbe2:fcclip/fcclip.py", *sources),
            notes=notes,
        )
