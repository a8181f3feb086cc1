"""What ``ovp eval`` does on scenes without a protocol: every measure of the procedural world at once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from eval.outcome_files import OUTCOME_FILE, prepare_folder
from eval.progress import progress_bar
from eval.reporting import write_report
from eval.reporting.numbers import is_time
from eval.running.run import Plan
from eval.scenes.measuring import measure_scenes
from eval.scenes.settings import Measure, Metrics, SceneEvaluation
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
    """Measures, writes what a protocol writes, and prints a table.

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
    model = load()
    with contextlib.ExitStack() as stack:
        advance: list[Any] = []

        def plan(found: Plan) -> None:
            if found.done and not as_json:
                typer.echo(f"{found.done} of {found.images} images were done before", err=True)
            bar = progress_bar(f"judging {split}", found.images, found.done)
            advance.append(stack.enter_context(bar))

        outcome = measure_scenes(model, settings, out, on_plan=plan, on_image=lambda: advance[0]())
    for part in sorted(out.glob(f"*/{OUTCOME_FILE}")):
        write_report(part.parent)
    page = write_report(out, outcome)
    if as_json:
        typer.echo(json.dumps(dict(outcome.metrics)))
        return
    Console().print(_table(dict(outcome.metrics), f"{model.name} on {outcome.title}"))
    typer.echo(f"Written to {page}")


def _measures(only: str) -> tuple[Measure, ...] | None:
    names = tuple(name.strip() for name in only.split(",") if name.strip())
    return cast("tuple[Measure, ...]", names) or None


def _table(metrics: Metrics, title: str) -> Table:
    """The metrics for a terminal: qualities in percent, times in milliseconds, one section a measure."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("metric")
    shown.add_column("%", justify="right")
    section = ""
    for name, value in metrics.items():
        measure = name.partition("/")[0]
        if section and measure != section:
            shown.add_section()
        section = measure
        if value is None:
            shown.add_row(name, "n/a")
        else:
            shown.add_row(name, f"{value:.1f} ms" if is_time(name) else f"{100 * value:.2f}")
    return shown
