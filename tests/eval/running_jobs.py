"""Small evaluations: few scenes of 96 pixels, few words, a model that is quick."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

from eval.protocols import protocol
from eval.running.job import Job
from ovperception.datasets.scenes import SceneSample, scene

SIDE = 96


@cache
def drawn(count: int) -> tuple[SceneSample, ...]:
    return tuple(scene("val", i, (SIDE, SIDE)) for i in range(count))


def job(name: str, out: Path, **settings: Any) -> Job:
    given = {"model": "fake", "data": "scenes", "limit": 3, "size": SIDE} | settings
    return Job(protocol=protocol(name), out=out, **given)


def numbers(out: Path) -> bytes:
    """The flat metrics as they lie on the disk."""
    return (out / "metrics.json").read_bytes()


def settled(out: Path) -> dict[str, Any]:
    """All of an outcome that must not depend on how it was come by."""
    content = json.loads((out / "outcome.json").read_text())
    return {k: v for k, v in content.items() if k not in ("facts", "report_line", "examples")}


def with_limit(one: Job, limit: int) -> Job:
    return dataclasses.replace(one, limit=limit)
