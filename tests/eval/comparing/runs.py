"""Small evaluations that lie in folders, as the runner leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics import score_coco
from eval.outcome import ClassRow, ImageScore, Outcome, RunFacts

IMAGES = range(1, 13)
NAMES = ("cat", "dog", "taxi", "ghost")


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def detection_files(
    folder: Path, *, seed: int, federated: bool = False, better: float = 0.0
) -> tuple[Path, Path]:
    """Annotations, the same whatever the seed, and results that miss, move and imagine some objects."""
    fixed, generator = np.random.default_rng(11), np.random.default_rng(seed)
    images: list[dict[str, Any]] = [{"id": i, "width": 100, "height": 100} for i in IMAGES]
    if federated:
        for image in images:
            image |= {"neg_category_ids": [1, 2], "not_exhaustive_category_ids": [3]}
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in IMAGES:
        for _ in range(4):
            box = [*fixed.uniform(0, 60, 2), *fixed.uniform(8, 40, 2)]
            category = int(fixed.integers(1, 4))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0 if federated else int(fixed.random() < 0.1),
                }
            )
            if generator.random() < 0.7 + better:
                moved = np.array(box) + generator.normal(0, 2 - 2 * better, 4)
                results.append(_result(image, category, np.maximum(moved, 1).tolist(), generator.random()))
            if generator.random() < 0.5 - better:
                other = [*generator.uniform(0, 60, 2), *generator.uniform(8, 40, 2)]
                results.append(_result(image, int(generator.integers(1, 4)), other, generator.random()))
    categories = [
        {"id": i, "name": name, "frequency": "rcff"[i - 1]} for i, name in enumerate(NAMES, start=1)
    ]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    return write_json(folder / "truth.json", truth), write_json(folder / "results.json", results)


def _result(image: int, category: int, box: Sequence[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


def detection_run(folder: Path, *, seed: int, better: float = 0.0) -> Outcome:
    """An evaluation of such files by the rules of OV-COCO."""
    folder.mkdir(exist_ok=True)
    truth, results = detection_files(folder, seed=seed, better=better)
    groups = {"base": (1, 2), "novel": (3, 4)}
    scores = score_coco(truth, results, groups=groups)
    return Outcome(
        protocol="ov_coco",
        title="OV-COCO",
        kind="coco",
        headline="AP50_novel",
        report_line="line",
        metrics=scores.metrics,
        rules=scores.rules,
        facts=RunFacts(model=f"m{seed}", data="coco", truth="truth.json", predictions="results.json"),
        per_class=tuple(
            ClassRow(
                id=row.category.id, name=row.category.name, groups=(row.category.group,), values=row.values
            )
            for row in scores.per_class
        ),
        images=tuple(
            ImageScore(image_id=i, file_name=f"{i}.jpg", path="", score=0.5 + better) for i in IMAGES
        ),
    )
