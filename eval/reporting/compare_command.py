"""``ovp eval compare A B``: two finished evaluations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["compare"]


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder that `ovp eval --out` wrote.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one, of the same protocol.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for comparison.html and comparison.json.", show_default=False),
    ] = None,
    resamples: Annotated[int, typer.Option(help="How often the images are drawn anew; 0 for none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Tell what differs between two runs, and whether chance alone could do it.

    Every metric and class of both, their difference, and its interval under a paired bootstrap over images.
    Runs of different protocols, data or words are refused.
    """
    from eval.comparing import compare as compared
    from eval.outcome_files import read_outcome
    from eval.reporting.comparison_page import comparison_json, comparison_table, write_comparison

    runs = read_outcome(first), read_outcome(second)
    found = compared(*runs, (first, second), resamples=resamples, seed=seed)
    if out is not None:
        write_comparison(found, out)
    if as_json:
        typer.echo(comparison_json(found))
        return
    console = Console(highlight=False)
    console.print(comparison_table(found))
    console.print(found.statistic, f"{found.resamples} resamples, seed {found.seed}.", markup=False)
    if found.no_interval:
        console.print(f"No intervals of the metrics: {found.no_interval}", markup=False)
    for name, a, b in found.differs:
        console.print(f"differs: {name}: A {a or 'not told'}; B {b or 'not told'}", markup=False)
    if out is not None:
        console.print(f"Written to {out}", markup=False)
