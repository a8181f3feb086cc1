"""Answers in the form that Cityscapes' server takes, ``predictions/instances`` of a run.

::

    CITY_SEQUENCE_FRAME.txt             a line an object: the mask's path, the id of the label, the score
    masks/CITY_SEQUENCE_FRAME_000.png   8 bits: 255 where the object is

`eval.metrics.cityscapes_results` reads it, as Cityscapes' own script does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.running.prediction_files import save_map, save_text
from ovperception.datasets.samples import Sample

__all__ = ["INSTANCES", "write_instances"]

INSTANCES = "instances"
"""Folder under ``predictions``."""


def write_instances(
    out: Path,
    sample: Sample,
    labels: Sequence[int],
    scores: Sequence[float],
    masks: Iterable[NDArray[np.uint8]],
) -> str:
    """Writes the masks of a picture and then the text that names them; gives its name under ``predictions``.

    Args:
        out: folder of the run.
        sample: the picture, of Cityscapes.
        labels: (N,) ids as in `labelIds` files, not train ids.
        scores: (N,).
        masks: N of (H, W), 1 where the object is.

    Raises:
        ResourceExhausted: the disk is full.
        InvalidInput: the folder cannot be written.
    """
    stem = Path(str(sample.image_id)).name
    lines = []
    for number, (label, score, mask) in enumerate(zip(labels, scores, masks, strict=True)):
        name = f"masks/{stem}_{number:03d}.png"
        save_map(mask * np.uint8(255), out, f"{INSTANCES}/{name}")
        lines.append(f"{name} {label} {score!r}\n")
    text = f"{INSTANCES}/{stem}.txt"
    save_text("".join(lines), out, text)
    return text
