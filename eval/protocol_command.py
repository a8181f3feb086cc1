"""What ``ovp eval`` does with a named protocol: list them, run one, score files by one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eval.outcome import Outcome
from eval.progress import progress_bar
from eval.protocols import METRIC_NAMES, EvaluationProtocol, protocol, protocols, with_metric
from eval.running.files import score_files
from eval.running.job import Job, protocol_of_data
from eval.running.run import Plan, run

__all__ = ["job_of", "list_protocols", "metrics_table", "run_protocol", "score"]

_WIDE = 140  # characters


def list_protocols(*, as_json: bool) -> None:
    """Prints every protocol; data, split and source of each where the terminal is wide, or as JSON."""
    rows = protocols()
    if as_json:
        typer.echo(json.dumps([_described(row) for row in rows]))
        return
    console = Console()
    columns = ["protocol", "metric", "what"]
    if console.width >= _WIDE:
        columns += ["data", "split", "source"]
    shown = Table(title=f"{len(rows)} protocols", title_justify="left", box=SIMPLE_HEAD)
    for name in columns:
        shown.add_column(name, no_wrap=name in ("protocol", "metric"))
    for row in rows:
        values = (row.name, row.headline, row.title, row.data, row.split, "; ".join(row.source))
        shown.add_row(*values[: len(columns)])
    console.print(shown)
    console.print(
        f"--metric {', '.join(METRIC_NAMES)}: the same answers by other rules. --protocols --json tells all.",
        style="dim",
        soft_wrap=True,
        highlight=False,
    )


def _described(row: EvaluationProtocol) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "data": row.data,
        "split": row.split,
        "vocabulary": row.asked or row.vocabulary,
        "task": row.task,
        "headline": row.headline,
        "source": list(row.source),
        "notes": row.notes,
    }


def job_of(name: str, data: str, metric: str = "", **settings: Any) -> Job:
    """The job that the options mean.

    Args:
        name: of the protocol; "" for the first one of the data.
        data: name or path; "" for the protocol's.
        metric: another one than the protocol's, see `with_metric`; "" for its own.
        settings: other attributes of `Job`.

    Raises:
        NotFound: there is no such protocol or data set.
        InvalidParameter: there is no such metric, or not of what the protocol asks for.
    """
    chosen = protocol(name) if name else protocol_of_data(data or "scenes")
    if metric:
        chosen = with_metric(chosen, metric)
    return Job(protocol=chosen, data=data or chosen.data, **settings)


def run_protocol(job: Job, *, as_json: bool) -> None:
    """Runs it, writes everything into its folder and prints a table."""
    with contextlib.ExitStack() as stack:
        advance: list[Any] = []

        def plan(found: Plan) -> None:
            if found.done and not as_json:
                typer.echo(f"{found.done} of {found.images} images were done before", err=True)
            bar = progress_bar(job.protocol.name, found.images, found.done)
            advance.append(stack.enter_context(bar))

        outcomes = run([job], on_plan=plan, on_image=lambda: advance[0]())
    for outcome in outcomes:
        _show(outcome, job.out, as_json)


def score(
    name: str,
    annotations: Path,
    results: Path,
    out: Path,
    *,
    metric: str,
    annotation_maps: Path | None,
    result_maps: Path | None,
    as_json: bool,
) -> None:
    """Scores files, writes everything into a folder and prints a table."""
    chosen = protocol(name)
    outcome = score_files(
        with_metric(chosen, metric) if metric else chosen,
        annotations,
        results,
        out,
        annotation_maps=annotation_maps,
        result_maps=result_maps,
    )
    _show(outcome, out, as_json)


def _show(outcome: Outcome, out: Path, as_json: bool) -> None:
    from eval.reporting import write_report

    page = write_report(out, outcome)
    if as_json:
        typer.echo(json.dumps(dict(outcome.metrics)))
        return
    console = Console()
    console.print(metrics_table(outcome))
    for warning in outcome.warnings:
        console.print(f"[yellow]{warning.count} x[/] {warning.text}", highlight=False)
    console.print(outcome.report_line, style="dim", soft_wrap=True, highlight=False)
    typer.echo(f"Written to {page}")


def metrics_table(outcome: Outcome) -> Table:
    """The numbers for a terminal, in percent, the headline first."""
    who = f"{outcome.facts.model} on " if outcome.facts.model else ""
    shown = Table(title=f"{who}{outcome.title}", title_justify="left")
    shown.add_column("metric")
    shown.add_column("%", justify="right")
    metrics: Mapping[str, float | None] = outcome.metrics
    ordered = [outcome.headline, *(name for name in metrics if name != outcome.headline)]
    for name in ordered:
        value = metrics.get(name)
        style = "bold" if name == outcome.headline else ""
        shown.add_row(name, "n/a" if value is None else f"{100 * value:.2f}", style=style)
    return shown
