"""Street scenes of rectangles in Cityscapes' own files, and answers that its rules tell apart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

THINGS = (24, 25, 26, 27, 28, 31, 32, 33)
HEIGHT, WIDTH = 96, 160


def write_street_scenes(folder: Path, seed: int, images: int = 6) -> tuple[Path, Path]:
    """``gtFine/val`` and ``results`` under a folder."""
    rng = np.random.default_rng(seed)
    truth, results = folder / "gtFine" / "val", folder / "results"
    for n in range(images):
        city = ("ulm", "bonn")[n % 2]
        stem = f"{city}_{n:06d}_000019"
        ids = _instances(rng)
        (truth / city).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(truth / city / f"{stem}_gtFine_instanceIds.png"), ids)
        (results / "masks").mkdir(parents=True, exist_ok=True)
        lines = []
        for label, mask in _answers(rng, ids):
            name = f"masks/{stem}_{len(lines)}.png"
            cv2.imwrite(str(results / name), mask.astype(np.uint8) * 255)
            lines.append(f"{name} {label} {np.round(rng.beta(2, 2), 1)}")  # one digit: many ties
        (results / f"{stem}_pred.txt").write_text("".join(f"{line}\n" for line in lines))
    return truth, results


def _instances(rng: np.random.Generator) -> np.ndarray:
    """Void, roads, groups, caravans, objects of the eight classes, some below 100 pixels."""
    ids = np.full((HEIGHT, WIDTH), 7, np.uint16)
    for n in range(int(rng.integers(8, 22))):
        label = int(rng.choice(THINGS[:3])) if rng.random() < 0.7 else int(rng.choice(THINGS))
        kind = rng.random()
        if kind < 0.15:
            value = int(rng.choice([0, 4, 5, 9, 29, 30, 29_000, 30_001]))
        else:
            value = label if kind < 0.3 else label * 1000 + n
        side = (4, 12) if rng.random() < 0.25 else (12, 50)
        height, width = (int(v) for v in rng.integers(*side, 2))
        y, x = int(rng.integers(0, HEIGHT - height + 1)), int(rng.integers(0, WIDTH - width + 1))
        ids[y : y + height, x : x + width] = value
    return ids


def _answers(rng: np.random.Generator, ids: np.ndarray) -> list[tuple[int, np.ndarray]]:
    found = []
    for value in np.unique(ids).tolist():
        for _ in range(int(rng.integers(0, 4))):
            mask = ids == value
            if mask.sum() > 6000:
                continue
            shift = rng.integers(-3, 4, 2)
            mask = np.roll(mask, tuple(shift.tolist()), (0, 1))
            cut = int(rng.integers(0, 20))
            mask[:, :cut] = False
            label = value // 1000 if value >= 1000 else value
            if rng.random() < 0.2 or label not in THINGS:
                label = int(rng.choice(THINGS[:4]))
            found.append((label, mask))
    for _ in range(int(rng.integers(0, 5))):
        mask = np.zeros(ids.shape, bool)
        y, x = int(rng.integers(0, 80)), int(rng.integers(0, 140))
        mask[y : y + 16, x : x + 20] = True
        found.append((int(rng.choice([*THINGS, 7])), mask))
    if rng.random() < 0.3:
        found.append((26, np.zeros(ids.shape, bool)))
    return found
