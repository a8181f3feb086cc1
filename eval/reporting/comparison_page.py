"""A comparison as a page, as JSON, and as a table for a terminal."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from eval.comparing import Change, Comparison
from eval.outcome_files import prepare_folder
from eval.reporting.difference_chart import difference_chart
from eval.reporting.numbers import is_time, signed, written
from eval.reporting.page import render
from eval.reporting.svg import HALF_WIDTH
from ovperception.images import write_file

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["comparison_json", "comparison_table", "render_comparison", "write_comparison"]

JSON_FILE = "comparison.json"
PAGE_FILE = "comparison.html"
_EXTREMES = 15


def comparison_json(found: Comparison) -> str:
    """All of it as one JSON object."""
    content = dataclasses.asdict(found)
    for key in ("metrics", "per_class"):
        for row, change in zip(content[key], getattr(found, key), strict=True):
            row["difference"] = change.difference
    return json.dumps(content, allow_nan=False, indent=2)


def render_comparison(found: Comparison) -> str:
    """The page as text.

    Raises:
        MissingDependency: jinja2 is not installed.
    """
    known = [row for row in found.per_class if row.difference is not None]
    gains = [row for row in known if (row.difference or 0) > 0][:_EXTREMES]
    losses = [row for row in reversed(known) if (row.difference or 0) < 0][:_EXTREMES]
    headline = next((row for row in found.metrics if row.name == found.headline), None)
    qualities = [row for row in found.metrics if not is_time(row.name)]
    return render(
        "comparison.html",
        {
            "found": found,
            "headline": headline,
            "metrics": difference_chart(
                "Differences of the metrics", [r for r in qualities if r.low is not None]
            ),
            "gains": difference_chart("Classes that gained most", gains, width=HALF_WIDTH),
            "losses": difference_chart("Classes that lost most", losses, width=HALF_WIDTH),
            "gained": sum((row.difference or 0) > 0 for row in known),
            "lost": sum((row.difference or 0) < 0 for row in known),
            "clear": sum(row.is_clear for row in known),
            "groups": tuple(dict.fromkeys(group for row in known for group in row.groups)),
        },
    )


def write_comparison(found: Comparison, out: Path) -> None:
    """Writes `comparison.html` and `comparison.json` into a folder; older ones are replaced.

    Raises:
        InvalidParameter, InvalidInput, ResourceExhausted: the folder cannot be written.
        MissingDependency: jinja2 is not installed.
    """
    prepare_folder(out)
    write_file(out / PAGE_FILE, render_comparison(found).encode())
    write_file(out / JSON_FILE, f"{comparison_json(found)}\n".encode())


def comparison_table(found: Comparison) -> Table:
    """The metrics for a terminal; a clear difference is bold."""
    from rich.markup import escape
    from rich.table import Table

    images = f", {found.images} images" if found.images else ""  # label maps of others are not told apart
    shown = Table(title=escape(f"{found.title}{images}"), title_justify="left")
    shown.add_column("%")
    for name in (*found.names, "B - A", "95 %"):
        shown.add_column(escape(name), justify="right")
    for row in found.metrics:
        cells = [written(row.name, row.a), written(row.name, row.b), signed(row.name, row.difference)]
        shown.add_row(escape(row.name), *cells, _between(row), style="bold" if row.is_clear else "")
    return shown


def _between(row: Change) -> str:
    return "" if row.low is None else f"{signed(row.name, row.low)} to {signed(row.name, row.high)}"
