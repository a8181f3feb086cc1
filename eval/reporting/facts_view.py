"""Everything needed to repeat a run, as rows of name and value."""

from __future__ import annotations

from collections.abc import Iterator

from eval.outcome import Outcome, RunFacts

__all__ = ["fact_groups", "made"]

Facts = tuple[tuple[str, str], ...]


def fact_groups(outcome: Outcome) -> tuple[tuple[str, Facts], ...]:
    """Titled groups of facts; what does not apply is left out."""
    groups = (
        ("Model", _model(outcome)),
        ("Data and words", _data(outcome)),
        ("Rules", iter(outcome.rules.items())),
        ("Run", _run(outcome)),
        ("Versions", iter(sorted(outcome.facts.versions.items()))),
    )
    return tuple(
        (title, rows)
        for title, found in groups
        if (rows := tuple((name, value) for name, value in found if value))
    )


def made(facts: RunFacts) -> tuple[str, ...]:
    """When, from which commit and on what a run was made, as far as it tells."""
    started = facts.started.replace("T", " ").replace("+00:00", " UTC")
    told = (started, f"commit {facts.commit[:12]}" if facts.commit else "", facts.machine)
    return tuple(word for word in told if word)


def _model(outcome: Outcome) -> Iterator[tuple[str, str]]:
    facts = outcome.facts
    yield "model", facts.model
    yield "digest of its weights", facts.model_digest
    yield "backbone", facts.backbone
    yield "digest of the backbone", facts.backbone_digest
    yield "device", facts.device
    yield "server", facts.server


def _data(outcome: Outcome) -> Iterator[tuple[str, str]]:
    facts = outcome.facts
    yield "data", facts.data
    yield "split", facts.split
    yield "images", f"{len(outcome.images):,}" if outcome.images else ""
    yield "annotations", facts.truth
    yield "predictions", facts.predictions
    yield "words", facts.vocabulary
    yield "hash of the words", facts.vocabulary_hash
    yield "templates", facts.templates
    yield "resolution", facts.resolution
    yield "augmentation at test time", facts.augmentation
    yield "seed", facts.seed


def _run(outcome: Outcome) -> Iterator[tuple[str, str]]:
    facts = outcome.facts
    yield "protocol", outcome.protocol
    yield "started", facts.started
    yield "commit", facts.commit
    yield "machine", facts.machine
    yield "processes", str(facts.workers)
    yield "wall-clock", _duration(facts.seconds)
    yield "inside the model", _duration(facts.inference_seconds)
    yield "judging", _judging(facts.evaluation_seconds, facts.inference_seconds)
    yield "taken up again", f"{facts.resumed} times" if facts.resumed else ""


def _judging(evaluation_s: float, inference_s: float) -> str:
    share = f", {evaluation_s / inference_s:.1%} of the model's time" if inference_s else ""
    return f"{_duration(evaluation_s)}{share}" if evaluation_s else ""


def _duration(seconds: float) -> str:
    if not seconds:
        return ""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
