"""What ``ovp eval`` does on scenes without a protocol: every measure of the procedural world at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer
from rich.console import Console

from eval.progress import progress_bar
from eval.report import facts, prepare_folder, table, write_report
from eval.scenes import Measure, Metrics, SceneEvaluation, evaluate_scenes
from ovperception.datasets.scenes import Split
from ovperception.datasets.scenes.vocabulary import Part

if TYPE_CHECKING:
    from ovperception.model import Model

__all__ = ["evaluate_own_measures"]


def evaluate_own_measures(
    load: Callable[[], Model],
    out: Path,
    *,
    split: str,
    images: int,
    first: int,
    size: int,
    words: Part,
    only: str,
    crops: int,
    workers: int,
    as_json: bool,
) -> None:
    """Measures, writes `metrics.json` and `report.md`, and prints a table.

    Args:
        load: gives the model; called after everything else was checked.
        out: folder of the results.
        split: of the scenes.
        images: how many scenes.
        first: index of the first.
        size: side in pixels.
        words: which classes are asked and judged.
        only: names of measures, joined by commas; "" for all.
        crops: of each thing.
        workers: processes that draw.
        as_json: print the metrics as JSON.
    """
    settings = SceneEvaluation(
        split=cast("Split", split),
        images=images,
        first=first,
        size=size,
        words=words,
        only=_measures(only),
        crops_per_class=crops,
        workers=workers,
    )
    prepare_folder(out)
    judged = load()
    about = facts(judged, settings)
    metrics = _measured(judged, settings)
    write_report(out, metrics, about)
    if as_json:
        typer.echo(json.dumps(metrics))
    else:
        Console().print(table(metrics, f"{judged.name} on scenes, {split}, {images} images"))
        typer.echo(f"Written to {out}")


def _measures(only: str) -> tuple[Measure, ...] | None:
    names = tuple(name.strip() for name in only.split(",") if name.strip())
    return cast("tuple[Measure, ...]", names) or None


def _measured(model: Model, settings: SceneEvaluation) -> Metrics:
    with progress_bar(f"judging {settings.split}", settings.images) as advance:
        return evaluate_scenes(model, settings, on_image=advance)
