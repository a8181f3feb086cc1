"""``ovp data scenes``: writes the procedural world to disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ovperception.datasets.scenes.export import ExportSettings, ImageFormat, export_scenes, summary
from ovperception.datasets.scenes.splits import Split


def data_scenes(
    out: Annotated[Path, typer.Option(help="Folder to make; absent or empty.", show_default=False)],
    split: Annotated[Split, typer.Option(help="Which split; no two share a scene.")] = "val",
    images: Annotated[int, typer.Option("--images", "-n", help="How many scenes.")] = 500,
    size: Annotated[int, typer.Option(help="Side of each square picture, in pixels.")] = 512,
    first: Annotated[int, typer.Option(help="Index of the first scene; the same index, the same scene.")] = 0,
    base_only: Annotated[
        bool, typer.Option("--base-only", help="Draw base classes only, as heads are trained.")
    ] = False,
    image_format: Annotated[ImageFormat, typer.Option(help="png keeps the exact pixels.")] = "jpg",
    workers: Annotated[int, typer.Option("--workers", "-j", help="Processes that draw.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was written as JSON.")] = False,
) -> None:
    """Write scenes of the built-in procedural world, with exact truth.

    The folder holds images/ and, in the words of each format, their truth: instances.json, panoptic.json with
    panoptic/, and captions.json (COCO), lvis.json (LVIS), ade/ (label PNGs as of ADE20K), and splits.json,
    which names the base and the novel classes.

    Nothing is downloaded, and the same options give the same files. The 500 images of the default take about
    half a minute and 70 MB. On any failure no folder is left.
    """
    settings = ExportSettings(
        split=split,
        images=images,
        first=first,
        size=(size, size),
        base_only=base_only,
        image_format=image_format,
    )
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("drawing {task.fields[split]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        task = progress.add_task("", total=images, split=split)
        export_scenes(out, settings, workers=workers, on_image=lambda: progress.advance(task))
    if as_json:
        typer.echo(json.dumps(summary(out, settings)))
    else:
        typer.echo(f"{images} scenes of the {split} split in {out}")
