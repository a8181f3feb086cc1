"""``ovp eval``: measures a model and writes what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eval.report import facts, prepare_folder, table, write_report
from eval.scenes import MEASURES, Measure, Metrics, SceneEvaluation, evaluate_scenes
from ovperception.datasets.scenes import Split
from ovperception.datasets.scenes.vocabulary import Part
from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from ovperception.model import Model

__all__ = ["evaluate", "load_model"]

_DATA = ("scenes",)


def load_model(name: str, device: str) -> Model:
    """A model by name or path."""
    import ovperception as ovp

    return ovp.load(name, device=device)


def evaluate(
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Name in the catalogue, or path of a bundle.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json and report.md.", show_default=False)],
    data: Annotated[str, typer.Option(help=f"What to measure on: {', '.join(_DATA)}.")] = "scenes",
    split: Annotated[Split, typer.Option(help="Which split; no two share a scene.")] = "val",
    images: Annotated[int, typer.Option("--images", "-n", help="How many scenes.")] = 500,
    first: Annotated[int, typer.Option(help="Index of the first scene.")] = 0,
    size: Annotated[int, typer.Option(help="Side of each square scene, in pixels.")] = 512,
    words: Annotated[
        Part, typer.Option(help="Classes asked for and judged; 'all' is the generalised setting.")
    ] = "all",
    only: Annotated[
        str, typer.Option(help=f"Some of {','.join(MEASURES)}; all if not given.", show_default=False)
    ] = "",
    crops: Annotated[int, typer.Option(help="Drawn crops of each thing, for crop/top1.")] = 3,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1.")] = "cpu",
    workers: Annotated[int, typer.Option("--workers", "-j", help="Processes that draw scenes.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON, 0-1.")] = False,
) -> None:
    """Measure a model, base and novel classes apart.

    On "scenes", the built-in procedural world, nothing is downloaded and the same options give the same
    numbers: zero-shot accuracy of crops and of true boxes, COCO AP of boxes and masks, mIoU, PQ, and the time
    of each question.
    """
    if data not in _DATA:
        raise InvalidParameter(
            "There is no such data to measure on",
            field="data",
            expected=f"one of {', '.join(_DATA)}",
            got=data,
        )
    settings = SceneEvaluation(
        split=split,
        images=images,
        first=first,
        size=size,
        words=words,
        only=_measures(only),
        crops_per_class=crops,
        workers=workers,
    )
    prepare_folder(out)
    judged = load_model(model, device)
    about = facts(judged, settings)
    metrics = _measured(judged, settings)
    write_report(out, metrics, about)
    if as_json:
        typer.echo(json.dumps(metrics))
    else:
        Console().print(table(metrics, f"{judged.name} on {data}, {split}, {images} images"))
        typer.echo(f"Written to {out}")


def _measures(only: str) -> tuple[Measure, ...] | None:
    names = tuple(name.strip() for name in only.split(",") if name.strip())
    return cast("tuple[Measure, ...]", names) or None


def _measured(model: Model, settings: SceneEvaluation) -> Metrics:
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("judging {task.fields[split]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        task = progress.add_task("", total=settings.images, split=settings.split)
        return evaluate_scenes(model, settings, on_image=lambda: progress.advance(task))
