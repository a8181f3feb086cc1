"""What a load has shown: percentiles, throughput, batch fill; as a table, as JSON, and beside another run."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

import ovperception
from ovperception.errors import InvalidParameter, MissingFile
from serving.bench_load import Sample

__all__ = ["FORMAT", "Report", "compare", "machine", "read_report", "summary", "table"]

FORMAT = 1
_PERCENTILES = (50, 95, 99)
Report = dict[str, Any]  # as it stands in JSON


def summary(samples: Sequence[Sample], duration_s: float, max_batch: int = 0) -> Report:
    """Numbers of one load.

    Args:
        samples: Every request of it.
        duration_s: For how long it was kept up.
        max_batch: Images that one pass has room for, where it is known.

    Returns:
        ``requests``, ``codes``, ``goodput_per_s`` (answers a second, from the beginning to the last one),
        ``latency_ms`` and ``stages_ms`` of answered requests by percentile, ``refusal_ms`` of the others,
        ``mean_batch``, ``batch_fill``, ``reply_bytes``.
    """
    good = [sample for sample in samples if sample.code == "OK"]
    bad = [sample for sample in samples if sample.code != "OK"]
    ends_s = [sample.due_s + sample.latency_ms / 1e3 for sample in good]
    took_s = max([duration_s, *ends_s])
    batches = sum(1 / sample.batch_size for sample in good if sample.batch_size)
    images = sum(1 for sample in good if sample.batch_size)
    mean_batch = images / batches if batches else 0.0
    stages = good[0].stages_ms if good else {}
    return {
        "requests": len(samples),
        "codes": dict(Counter(sample.code for sample in samples).most_common()),
        "goodput_per_s": len(good) / took_s,
        "latency_ms": _percentiles([sample.latency_ms for sample in good]),
        "refusal_ms": _percentiles([sample.latency_ms for sample in bad]),
        "stages_ms": {stage: _percentiles([s.stages_ms[stage] for s in good]) for stage in stages},
        "mean_batch": mean_batch,
        "batch_fill": mean_batch / max_batch if max_batch else None,
        "reply_bytes": float(np.median([sample.reply_bytes for sample in good])) if good else 0.0,
    }


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = np.percentile(np.asarray(values), _PERCENTILES)
    return {f"p{p}": float(value) for p, value in zip(_PERCENTILES, found, strict=True)} | {
        "max": float(max(values))
    }


def machine() -> dict[str, Any]:
    """Where the load was made, for whoever compares two reports."""
    return {
        "ovperception": ovperception.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


def table(report: Report) -> Table:
    """A report for people."""
    result = report["result"]
    codes = ", ".join(f"{count} {code}" for code, count in result["codes"].items())
    title = f"{result['goodput_per_s']:.1f} answers/s ({codes})"
    fill = result["batch_fill"]
    caption = f"{result['mean_batch']:.2f} images a pass"
    caption += f", {fill:.0%} of its room" if fill is not None else ""
    made = Table("ms", *(f"p{p}" for p in _PERCENTILES), "max", title=title, caption=caption)
    rows = {"latency": result["latency_ms"], **result["stages_ms"], "refusals": result["refusal_ms"]}
    for name, row in rows.items():
        if row and row["max"] > 0:
            made.add_row(name, *(f"{value:.2f}" for value in row.values()))
    return made


def read_report(path: Path) -> Report:
    """A report that was written before.

    Raises:
        MissingFile, InvalidParameter: There is none, or it is none.
    """
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise MissingFile("The report cannot be read", got=f"{path}: {error.strerror}") from None
    except ValueError:
        report = None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise InvalidParameter("This is no report of ovp bench", expected=f"format {FORMAT}", got=path)
    return report


def compare(before: Report, after: Report) -> tuple[Table, list[str]]:
    """Two reports side by side, and in which settings they differ."""
    made = Table("", "A", "B", "B / A")
    for name, first, second in _pairs(before["result"], after["result"]):
        ratio = f"{second / first:.3f}" if first else ""
        made.add_row(name, f"{first:.2f}", f"{second:.2f}", ratio)
    differences = []
    for part in ("plan", "machine"):
        for key in sorted(before[part].keys() | after[part].keys()):
            first, second = before[part].get(key), after[part].get(key)
            if first != second and key != "load_average":
                differences.append(f"{part} {key}: {first} and {second}")
    return made, differences


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    found = [(name, before[name], after[name]) for name in ("goodput_per_s", "mean_batch", "reply_bytes")]
    rows = [("latency_ms", before["latency_ms"], after["latency_ms"])]
    shared = [stage for stage in before["stages_ms"] if stage in after["stages_ms"]]
    rows += [(stage, before["stages_ms"][stage], after["stages_ms"][stage]) for stage in shared]
    for name, first, second in rows:
        if first and second:
            found += [
                (f"{name} {key}", first[key], second[key]) for key in first if second[key] or first[key]
            ]
    return found
