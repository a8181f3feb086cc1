"""Writing an `Outcome` into a folder, and reading it back; the layout is told in `eval.outcome`."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.answer_files import read_answer, write_answer
from eval.outcome import (
    Breakdown,
    ClassRow,
    ConfusedPair,
    CountedWarning,
    Curve,
    Example,
    ImageCounts,
    ImageScore,
    Outcome,
    RunFacts,
)
from ovperception.errors import InvalidDataset, InvalidParameter, MissingFile
from ovperception.images import write_file

__all__ = ["METRICS_FILE", "OUTCOME_FILE", "prepare_folder", "read_outcome", "write_outcome"]

METRICS_FILE = "metrics.json"
OUTCOME_FILE = "outcome.json"
_LATENCIES = "latencies.json"
_COUNTS = "image_counts.npz"
_EXAMPLES = "examples"
_VERSION = 1


def prepare_folder(out: Path) -> None:
    """Makes sure, before hours of work, that the results can be written.

    Raises:
        InvalidParameter: it is no folder, or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        trial = out / f".{METRICS_FILE}.{os.getpid()}"
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise InvalidParameter(
            "The output folder cannot be written",
            field="out",
            expected="a folder, or a path where one can be made",
            got=f"{out} ({error.strerror or error})",
            mend="Name another folder",
        ) from error


def write_outcome(outcome: Outcome, out: Path) -> None:
    """Writes it, `outcome.json` last: where it lies, the evaluation is whole.

    Raises:
        ResourceExhausted: the disk is full.
        InvalidInput: the folder cannot be written.
        MissingFile: there is no such folder.
    """
    if outcome.examples:
        (out / _EXAMPLES).mkdir(exist_ok=True)
    document = _document(outcome)
    document["examples"] = [_example(example, i, out) for i, example in enumerate(outcome.examples)]
    if outcome.counts is not None:
        write_file(out / _COUNTS, _packed(outcome.counts))
    write_file(out / _LATENCIES, _json({name: list(row) for name, row in outcome.latencies.items()}))
    write_file(out / METRICS_FILE, _json(dict(outcome.metrics), indent=2))
    write_file(out / OUTCOME_FILE, _json(document))


def _document(outcome: Outcome) -> dict[str, Any]:
    """Everything that is small and plain."""
    elsewhere = ("examples", "counts", "latencies")
    return {"version": _VERSION} | {
        entry.name: _plain(getattr(outcome, entry.name))
        for entry in dataclasses.fields(outcome)
        if entry.name not in elsewhere
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _example(example: Example, number: int, out: Path) -> dict[str, Any]:
    stem = f"{_EXAMPLES}/{number:03d}"
    return {
        "which": example.which,
        "image": _plain(example.image),
        "picture": example.picture,
        "truth": write_answer(example.truth, out, f"{stem}_truth.png"),
        "found": write_answer(example.found, out, f"{stem}_found.png"),
    }


def _packed(counts: ImageCounts) -> bytes:
    buffer = io.BytesIO()
    columns = np.array(counts.columns)
    np.savez_compressed(
        buffer, columns=columns, images=counts.images, classes=counts.classes, values=counts.values
    )
    return buffer.getvalue()


def _json(content: object, indent: int | None = None) -> bytes:
    return (json.dumps(content, indent=indent, allow_nan=False) + "\n").encode()


def read_outcome(out: Path) -> Outcome:
    """Reads what `write_outcome` wrote.

    Raises:
        MissingFile: there is no finished evaluation.
        InvalidDataset: a file of it is broken.
    """
    out = Path(out)
    if not (out / OUTCOME_FILE).is_file():
        raise MissingFile(
            "There is no finished evaluation in this folder",
            expected=str(out / OUTCOME_FILE),
            got=", ".join(sorted(path.name for path in out.iterdir())[:6]) if out.is_dir() else "no folder",
            mend="Run `ovp eval --out` with this folder; a run that was stopped goes on where it was",
        )
    try:
        return _read(out)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InvalidDataset(
            "This evaluation cannot be read",
            field=str(out),
            expected="files that this version of `ovp eval` wrote",
            got=f"{type(error).__name__}: {error}",
            mend="Run `ovp eval` with this folder again",
        ) from error


def _read(out: Path) -> Outcome:
    content = json.loads((out / OUTCOME_FILE).read_bytes())
    if content["version"] != _VERSION:
        raise ValueError(f"version {content['version']}, not {_VERSION}")
    latencies = json.loads((out / _LATENCIES).read_bytes())
    return Outcome(
        **{name: content[name] for name in ("protocol", "title", "kind", "headline", "report_line")},
        metrics=content["metrics"],
        rules=content["rules"],
        facts=RunFacts(**content["facts"]),
        per_class=tuple(ClassRow(**row | {"groups": tuple(row["groups"])}) for row in content["per_class"]),
        curves=tuple(Curve(**row | {"precision": tuple(row["precision"])}) for row in content["curves"]),
        confusion=tuple(ConfusedPair(**row) for row in content["confusion"]),
        breakdowns=tuple(Breakdown(**row) for row in content["breakdowns"]),
        latencies={name: tuple(row) for name, row in latencies.items()},
        images=tuple(ImageScore(**row) for row in content["images"]),
        examples=tuple(_read_example(row, out) for row in content["examples"]),
        counts=_read_counts(out / _COUNTS),
        warnings=tuple(CountedWarning(**row) for row in content["warnings"]),
    )


def _read_example(row: Mapping[str, Any], out: Path) -> Example:
    return Example(
        which=row["which"],
        image=ImageScore(**row["image"]),
        picture=row["picture"],
        truth=read_answer(row["truth"], out),
        found=read_answer(row["found"], out),
    )


def _read_counts(path: Path) -> ImageCounts | None:
    if not path.is_file():
        return None
    with np.load(path) as file:
        return ImageCounts(
            columns=tuple(file["columns"].tolist()),
            images=file["images"],
            classes=file["classes"],
            values=file["values"],
        )
