"""Answers as small files: detections inside the JSON, maps as PNGs beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics.label_images import read_label_map, read_panoptic_map
from eval.outcome import Answer
from ovperception.rle import RLE
from ovperception.structures import Detections, PanopticMap, Segment, SemanticMap

__all__ = ["read_answer", "write_answer"]


def write_answer(answer: Answer, out: Path, name: str) -> dict[str, Any]:
    """Writes the map, if it is one, and gives the JSON that `read_answer` takes.

    Args:
        answer: detections or a map.
        out: folder.
        name: of the PNG, relative to it.
    """
    if isinstance(answer, Detections):
        return {
            "kind": "detections",
            "size": list(answer.size),
            "classes": list(answer.classes),
            "boxes": answer.boxes.tolist(),
            "scores": answer.scores.tolist(),
            "class_ids": answer.class_ids.tolist(),
            "masks": None if answer.masks is None else [mask.to_coco() for mask in answer.masks],
        }
    answer.save_png(out / name)
    if isinstance(answer, SemanticMap):
        return {"kind": "semantic", "classes": list(answer.classes), "map": name}
    segments = [dataclasses.asdict(segment) for segment in answer.segments]
    return {"kind": "panoptic", "classes": list(answer.classes), "map": name, "segments": segments}


def read_answer(row: Mapping[str, Any], out: Path) -> Answer:
    """What `write_answer` wrote.

    Raises:
        MissingFile: the map is gone.
        InvalidDataset: the map is broken.
        KeyError, ValueError: the JSON is not of `write_answer`.
    """
    classes = tuple(row["classes"])
    if row["kind"] == "detections":
        masks = row["masks"]
        return Detections(
            size=(row["size"][0], row["size"][1]),
            classes=classes,
            boxes=np.array(row["boxes"], np.float32).reshape(-1, 4),
            scores=np.array(row["scores"], np.float32),
            class_ids=np.array(row["class_ids"], np.int64),
            masks=None if masks is None else tuple(RLE.from_coco(mask) for mask in masks),
        )
    if row["kind"] == "semantic":
        values = read_label_map(out / row["map"])
        labels = values.astype(np.int32)
        labels[labels == (255 if len(classes) <= 255 else 65535)] = -1
        return SemanticMap(classes=classes, labels=labels)
    segments = tuple(Segment(**segment) for segment in row["segments"])
    return PanopticMap(
        classes=classes, ids=read_panoptic_map(out / row["map"]).astype(np.int32), segments=segments
    )
