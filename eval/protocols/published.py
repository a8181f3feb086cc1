"""What others published under a protocol, to stand beside one's own numbers, marked as published.

The numbers are facts of papers and repositories, each with its source; ``published.json`` beside this file
holds them. ``checked`` says whether a number was read in the source itself; what is quoted from memory must
be looked up before it is printed anywhere, and is left out unless asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["Published", "published"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One number of one model.

    Attributes:
        protocol: name of the protocol.
        method: the model.
        backbone: as its source calls it; "" where it says none.
        metric: as `eval.metrics` names it.
        value: in percent, with the digits of the source.
        source: paper or repository.
        checked: read in the source, not from memory.
        note: what may differ from the protocol.
    """

    protocol: str
    method: str
    backbone: str
    metric: str
    value: float
    source: str
    checked: bool
    note: str = ""


def published(
    protocol: str | None = None, *, metric: str | None = None, checked: bool = True
) -> tuple[Published, ...]:
    """The published numbers, best first within a metric.

    Args:
        protocol: of this protocol alone; None for all.
        metric: of this metric alone; None for all.
        checked: only those that were read in their source.
    """
    found = [
        row
        for row in _rows()
        if protocol in (None, row.protocol) and metric in (None, row.metric) and (row.checked or not checked)
    ]
    return tuple(sorted(found, key=lambda row: (row.protocol, row.metric, -row.value)))


@cache
def _rows() -> tuple[Published, ...]:
    text = files("eval").joinpath("protocols", "published.json").read_text(encoding="utf-8")
    return tuple(
        Published(
            protocol=group["protocol"],
            method=row["method"],
            backbone=row.get("backbone", ""),
            metric=metric,
            value=value,
            source=row["source"],
            checked=row.get("checked", True),
            note=row.get("note", ""),
        )
        for group in json.loads(text)["protocols"]
        for row in group["rows"]
        for metric, value in row["metrics"].items()
    )
