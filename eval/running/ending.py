"""The end of a run: all records become one `Outcome` in the folder."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
import sys
from collections.abc import Mapping

from eval.outcome import Outcome, RunFacts
from eval.outcome_files import write_outcome
from eval.protocols import EvaluationProtocol, report_line
from eval.running.asking import Identity
from eval.running.done import Done
from eval.running.examples import examples, image_scores
from eval.running.machine import machine, tree, versions
from eval.running.scoring import Scored, scored
from eval.running.share import RECORDS, Opened, count_of
from eval.running.tables import breakdowns, class_rows, counted_warnings

__all__ = ["end", "facts_of", "finish", "headline_of"]


def headline_of(protocol: EvaluationProtocol, metrics: Mapping[str, float | None]) -> str:
    """The metric people quote, or the first there is."""
    if protocol.headline in metrics:
        return protocol.headline
    return next(iter(metrics), protocol.headline)


def end(opened: Opened, identity: Identity) -> Outcome:
    """What `finish` wrote, alone."""
    return finish(opened, identity)[0]


def finish(opened: Opened, identity: Identity) -> tuple[Outcome, Scored]:
    """Scores what was done and writes it; the same records give the same numbers.

    Raises:
        ResourceExhausted: the disk is full; the records are untouched.
        InvalidDataset: the annotations are not what they should be.
    """
    job = opened.job
    done = Done(job.out / RECORDS, count_of(opened))
    result = scored(opened, done)
    images = image_scores(done)
    groups = {str(name): ids for name, ids in opened.question.groups.items()}
    facts = facts_of(opened, identity, done, truth=result.truth, predictions=result.predictions)
    outcome = Outcome(
        protocol=job.protocol.name,
        title=job.protocol.title,
        kind=result.scores.kind,
        headline=headline_of(job.protocol, result.metrics),
        report_line=_report_line(opened, len(done), facts, result.engine),
        metrics=result.metrics,
        rules=dict(result.scores.rules),
        facts=facts,
        per_class=class_rows(result.scores, groups),
        curves=result.curves,
        confusion=result.confusion,
        breakdowns=breakdowns(result.scores, groups),
        latencies=_latencies(done),
        images=images,
        examples=examples(opened, done, images),
        counts=result.counts,
        warnings=counted_warnings(result.scores.warnings),
    )
    write_outcome(outcome, job.out)
    return outcome, result


def _report_line(opened: Opened, images: int, facts: RunFacts, engine: str) -> str:
    protocol = opened.job.protocol
    if opened.job.data != protocol.data:
        protocol = dataclasses.replace(protocol, data=opened.dataset.name)
    return report_line(
        protocol,
        images=images,
        vocabulary_hash=facts.vocabulary_hash,
        engine=engine,
        split=opened.job.split,
        templates=facts.templates or None,
        resolution=facts.resolution or None,
        augmentation=facts.augmentation or "none",
    )


def facts_of(opened: Opened, identity: Identity, done: Done, *, truth: str, predictions: str) -> RunFacts:
    """What one must know to repeat a run.

    Args:
        opened: what was evaluated.
        identity: who answered.
        done: the records.
        truth: path of the annotations.
        predictions: path of the answers.
    """
    job, sessions = opened.job, done.sessions
    spent = [(record["asked_s"], record["judged_s"]) for record in done]
    drawn = job.data == "scenes"
    return RunFacts(
        command=shlex.join(["ovp", *sys.argv[1:]]),
        model=f"{identity.name}, version {identity.version}",
        model_digest=identity.digest,
        backbone=identity.backbone,
        backbone_digest=identity.backbone_digest,
        device=identity.device,
        server=job.server,
        data=opened.dataset.name,
        split=job.split or job.protocol.split,
        truth=truth,
        predictions=predictions,
        vocabulary=job.protocol.asked or job.protocol.vocabulary,
        vocabulary_hash=opened.question.vocabulary.content_hash,
        templates=job.protocol.templates or identity.templates,
        resolution=identity.resolution,
        augmentation=identity.augmentation,
        seed=f"scenes {job.first} and up, {job.size} pixels a side" if drawn else "",
        commit=tree(),
        versions=versions(),
        machine=machine(),
        started=datetime.datetime.fromtimestamp(sessions.started, datetime.UTC).isoformat(timespec="seconds"),
        workers=job.workers,
        seconds=sessions.seconds,
        inference_seconds=sum(asked for asked, _ in spent),
        evaluation_seconds=sum(judged for _, judged in spent),
        resumed=max(sessions.count - 1, 0),
    )


def _latencies(done: Done) -> dict[str, tuple[float, ...]]:
    stages: dict[str, list[float]] = {}
    for record in done:
        for name, ms in record["timing"].items():
            stages.setdefault(name, []).append(ms)
    return {name: tuple(row) for name, row in stages.items()}
