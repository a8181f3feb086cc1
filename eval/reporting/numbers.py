"""How numbers are written: qualities in percent, counts with thousands apart, times in milliseconds."""

from __future__ import annotations

__all__ = ["COUNTS", "is_time", "meaning", "signed", "written"]

COUNTS = frozenset(
    {
        *("objects", "detections", "pixels", "predicted_pixels", "tp", "fp", "fn", "TP", "FP", "FN"),
        *("classes", "images", "segments", "episodes"),
    }
)
"""Columns that count; all others are 0-1, but for ``timing/...``."""

_MEANINGS = {
    "AP": "mean of the average precision over IoU 0.50 to 0.95 and over classes",
    "AP50": "average precision where a detection counts as right from IoU 0.50 on",
    "AP75": "the same from IoU 0.75 on",
    "APs": "AP of objects below 32 x 32 pixels",
    "APm": "AP of objects from 32 x 32 to 96 x 96 pixels",
    "APl": "AP of objects above 96 x 96 pixels",
    "APr": "AP of rare classes: 1 to 10 training images",
    "APc": "AP of common classes: 11 to 100 training images",
    "APf": "AP of frequent classes: above 100 training images",
    "mAP": "mean over classes of PASCAL VOC's average precision, at IoU 0.5",
    "boundary_mIoU": "mean IoU of the pixels near the outlines of classes",
    "boundary_IoU": "IoU of the pixels near the outlines of the class",
    "PQ": "panoptic quality: SQ x RQ of each class, then the mean over classes",
    "SQ": "segmentation quality: mean IoU of the matched segments",
    "RQ": "recognition quality: F1 of the segments",
    "mIoU": "mean intersection over union of the classes",
    "FB-IoU": "mean of the IoU of what was asked and of everything else, over all pictures at once",
    "fwIoU": "IoU weighted by how many pixels are of each class",
    "mACC": "mean over classes of the share of their pixels that were found",
    "pACC": "share of all judged pixels that were found",
    "IoU": "intersection over union",
    "ACC": "share of the class's pixels that were found",
    "AR": "mean recall over IoU 0.50 to 0.95 and over classes",
    "AR1": "recall at one detection an image and class, mean over IoU 0.50 to 0.95",
    "AR10": "the same at 10 detections",
    "AR100": "the same at 100 detections",
    "ARs": "recall of objects below 32 x 32 pixels",
    "ARm": "recall of objects from 32 x 32 to 96 x 96 pixels",
    "ARl": "recall of objects above 96 x 96 pixels",
    "objects": "true objects, crowds left out",
    "detections": "detections that were judged",
}


def is_time(name: str) -> bool:
    """Whether a metric is in milliseconds."""
    return name.startswith("timing/") or name.endswith("_ms")


def written(name: str, value: float | None, digits: int = 1) -> str:
    """A number as the page shows it; "n/a" where nothing can be said."""
    if value is None:
        return "n/a"
    if is_time(name):
        return f"{value:,.1f} ms"
    if name.rpartition("/")[2] in COUNTS:
        return f"{value:,.0f}"
    return f"{100 * value:.{digits}f}"


def signed(name: str, value: float | None, digits: int = 1) -> str:
    """A difference as the page shows it, with its sign."""
    text = written(name, value, digits)
    return text if value is None or text.startswith("-") else f"+{text}"


def meaning(name: str) -> str:
    """What a metric says, in a few words; "" of one that nobody described."""
    name = name.rpartition("/")[2]
    if name in _MEANINGS:
        return _MEANINGS[name]
    if "@" in name:
        stem, _, most = name.partition("@")
        text = _MEANINGS.get(stem, "")
        return f"{text}, at most {most} detections an image" if text else ""
    stem, _, group = name.partition("_")
    text = _MEANINGS.get(stem, "")
    if not group or not text:
        return text
    group = group.removesuffix("_per_class")
    if group in ("things", "stuff"):
        return f"{text}; {group} alone"
    return f"{text}; {'all groups together' if group == 'all' else f'{group} classes alone'}"
