"""The report of one evaluation: a page that works offline, from the folder the runner wrote."""

from __future__ import annotations

from pathlib import Path

from eval.outcome import Outcome
from eval.outcome_files import read_outcome
from eval.reporting.breakdown_view import breakdown_views
from eval.reporting.class_table import class_table, packed_curves
from eval.reporting.confusion_view import confusion_view
from eval.reporting.curves_view import CHOSEN_LINE, curves_chart
from eval.reporting.facts_view import fact_groups, made
from eval.reporting.headline import beside_published, tiles
from eval.reporting.latency_chart import latency_chart, quantiles
from eval.reporting.page import render
from eval.reporting.pictures import example_views
from eval.reporting.score_chart import score_chart
from ovperception.images import write_file

__all__ = ["REPORT_FILE", "render_report", "write_report"]

REPORT_FILE = "report.html"


def write_report(out: Path, outcome: Outcome | None = None) -> Path:
    """Writes `report.html` into the folder of an evaluation; an older one is replaced.

    Args:
        out: folder that `eval.outcome_files.write_outcome` wrote.
        outcome: what lies there, if it is at hand.

    Returns:
        The path of the page.

    Raises:
        MissingFile: there is no finished evaluation.
        InvalidDataset: a file of it is broken.
        InvalidInput, ResourceExhausted: the page cannot be written.
        MissingDependency: jinja2 is not installed.
    """
    page = render_report(read_outcome(out) if outcome is None else outcome, out)
    write_file(out / REPORT_FILE, page.encode())
    return out / REPORT_FILE


def render_report(outcome: Outcome, out: Path) -> str:
    """The page as text.

    Args:
        outcome: what was found.
        out: folder that its relative paths start from.

    Raises:
        MissingDependency: jinja2 is not installed.
    """
    examples, problems = example_views(outcome, out)
    stages = {name: row for name, row in outcome.latencies.items() if row}
    return render(
        "report.html",
        {
            "outcome": outcome,
            "made": made(outcome.facts),
            "tiles": tiles(outcome),
            "beside": beside_published(outcome),
            "breakdowns": breakdown_views(outcome),
            "curves": curves_chart(outcome),
            "chosen_line": CHOSEN_LINE,
            "class_curves": packed_curves(outcome.curves),
            "table": class_table(outcome),
            "confusion": confusion_view(outcome),
            "latency": latency_chart(stages),
            "stages": [(name, q) for name, row in stages.items() if (q := quantiles(row))],
            "scores": score_chart(outcome.images),
            "examples": examples,
            "problems": problems,
            "facts": fact_groups(outcome),
        },
    )
