"""Draws the contact sheet of the documentation: scenes, half of them with their truth, and the stuff.

::

    python -m ovperception.datasets.scenes.sheet --out docs/images/scenes.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from ovperception.datasets.scenes.atlas import UInt8
from ovperception.datasets.scenes.categories import STUFF_NAMES, load_categories
from ovperception.datasets.scenes.sample import SceneSample
from ovperception.datasets.scenes.splits import scene
from ovperception.datasets.scenes.textures import paint_stuff

_SCENES = (22, 35, 11, 12, 20, 47, 34, 27)  # of the val split, chosen for variety
_COLUMNS = 4
_TILE = 320
_STRIP = _COLUMNS * _TILE // len(STUFF_NAMES)
_MAX_BYTES = 300_000
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def _label(image: UInt8, text: str, x: int, y: int) -> None:
    """Writes white on black with its lower left corner at x, y, moved to stay inside."""
    (width, height), base = cv2.getTextSize(text, _FONT, 0.4, 1)
    x = max(0, min(x, image.shape[1] - width - 4))
    y = max(height + base, y)
    cv2.rectangle(image, (x, y - height - base), (x + width + 3, y), (0, 0, 0), cv2.FILLED)
    cv2.putText(image, text, (x + 2, y - base + 1), _FONT, 0.4, (255, 255, 255), 1, cv2.LINE_AA)


def with_truth(sample: SceneSample) -> UInt8:
    """Draws boxes, and names with colour attribute, on a copy of the picture."""
    image = sample.image.copy()
    categories = load_categories()
    for segment in sample.things:
        x1, y1, x2, y2 = (int(value) for value in segment.box)
        cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), (255, 255, 255), 2)
        cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), (0, 0, 0), 1)
    for segment in sample.things:
        name = categories[segment.category_id - 1].name
        text = f"{segment.colour} {name}" if segment.colour else name
        _label(image, text, int(segment.box[0]), int(segment.box[1]))
    return image


def draw_sheet() -> UInt8:
    """Draws the sheet, (H, W, 3) uint8 RGB: two rows of four scenes over a strip of the eight stuffs."""
    tiles = []
    for place, index in enumerate(_SCENES):
        sample = scene("val", index, (_TILE, _TILE))
        tiles.append(with_truth(sample) if place % 2 else sample.image)
    rows = [np.hstack(tiles[start : start + _COLUMNS]) for start in range(0, len(tiles), _COLUMNS)]
    rng = np.random.Generator(np.random.PCG64(3))
    strip = []
    for stuff in STUFF_NAMES:
        patch = paint_stuff(rng, stuff, (_STRIP, _STRIP))
        _label(patch, stuff, 0, _STRIP - 3)
        strip.append(patch)
    sheet: UInt8 = np.vstack([*rows, np.hstack(strip)])
    return sheet


def write_sheet(out: Path) -> int:
    """Writes the sheet as the best JPEG under 300 kB and gives its size in bytes."""
    sheet = draw_sheet()
    for quality in range(92, 30, -4):
        _, encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(encoded) < _MAX_BYTES:
            break
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(encoded.tobytes())
    return len(encoded)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws the contact sheet of the documentation.")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    print(f"{arguments.out}: {write_sheet(arguments.out) / 1000:.0f} kB")
