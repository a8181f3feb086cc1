"""One outcome of all measures of scenes: their numbers, and one table of classes for all of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from eval.metrics import PanopticScores, PrecisionRecall, SemanticScores, score_coco
from eval.outcome import Breakdown, ClassRow, Example, Outcome, RunFacts
from eval.protocols import report_line
from eval.running.asking import Identity
from eval.running.done import Done
from eval.running.ending import facts_of
from eval.running.scoring import Scored
from eval.running.share import RECORDS, Opened, count_of
from eval.running.tables import curves
from eval.scenes.naming_task import NamingTask
from eval.scenes.numbers import detection_numbers, panoptic_numbers, semantic_numbers
from eval.scenes.rules import RULES
from eval.scenes.settings import MEASURES, Measure, Metrics, SceneEvaluation
from ovperception.datasets.scenes import SceneCategory
from ovperception.datasets.scenes.vocabulary import chosen_categories

__all__ = ["Measured", "summary"]

_HEADLINES = ("box/AP50", "panoptic/PQ", "semantic/mIoU", "region/top1", "crop/top1")
_STAGES = ("encode", "detect", "semantic", "panoptic")


@dataclass(frozen=True, slots=True)
class Measured:
    """A protocol that was carried out, with everything its page shows."""

    outcome: Outcome
    scored: Scored
    opened: Opened


def summary(
    settings: SceneEvaluation,
    measured: Mapping[Measure, Measured],
    namer: NamingTask | None,
    naming: Opened,
    identity: Identity,
    learnt_ms: float | None,
) -> Outcome:
    """What was measured, together.

    Args:
        settings: on what.
        measured: protocols that were carried out; others that were wanted could not be.
        namer: of crops and true boxes, if they were wanted.
        naming: the scenes and the words.
        identity: who answered.
        learnt_ms: milliseconds for the words.
    """
    categories = chosen_categories(settings.words)
    boxes = _boxes(measured.get("box"))
    latencies = _latencies(measured, naming)
    metrics = _metrics(settings, measured, namer, boxes, categories)
    metrics["timing/text_ms"] = learnt_ms
    for stage in _STAGES:
        times = latencies.get(stage)
        metrics[f"timing/{stage}_ms"] = statistics.median(times) if times else None
    shown = next((measured[m] for m in ("box", "panoptic", "semantic") if m in measured), None)
    headline = next((n for n in _HEADLINES if metrics.get(n) is not None), next(iter(metrics)))
    facts = _facts(settings, measured, naming, identity)
    return Outcome(
        protocol="scenes",
        title=f"scenes, {settings.split}, {settings.images} images, {settings.words} words",
        kind="scenes" if shown is None else shown.outcome.kind,
        headline=headline,
        report_line=_line(settings, naming, facts, categories),
        metrics=metrics,
        rules={name: RULES[name] for name in dict.fromkeys(n.partition("/")[0] for n in metrics)},
        facts=facts,
        per_class=_class_rows(measured, boxes, categories),
        curves=() if boxes is None else curves(boxes, {c.id: c.name for c in categories}, _parts(categories)),
        confusion=() if shown is None else shown.outcome.confusion,
        breakdowns=_breakdowns(metrics),
        latencies=latencies,
        images=() if shown is None else shown.outcome.images,
        examples=() if shown is None else tuple(_moved(e, shown) for e in shown.outcome.examples),
    )


def _boxes(measured: Measured | None) -> PrecisionRecall | None:
    """AP of the boxes; where there are masks, the protocol judged those."""
    if measured is None:
        return None
    if measured.outcome.protocol.endswith("_box"):
        return _curves(measured)
    out = measured.opened.job.out
    return score_coco(out / measured.scored.truth, out / measured.scored.predictions, iou="bbox").curves


def _curves(measured: Measured) -> PrecisionRecall:
    from eval.metrics import DetectionScores

    return cast("DetectionScores", measured.scored.scores).curves


def _masks(measured: Measured | None) -> PrecisionRecall | None:
    if measured is None or measured.outcome.protocol.endswith("_box"):
        return None
    return _curves(measured)


def _metrics(
    settings: SceneEvaluation,
    measured: Mapping[Measure, Measured],
    namer: NamingTask | None,
    boxes: PrecisionRecall | None,
    categories: tuple[SceneCategory, ...],
) -> Metrics:
    wanted = settings.only or MEASURES
    metrics: Metrics = {} if namer is None else namer.numbers()
    if "box" in wanted:
        metrics |= detection_numbers("box", boxes, categories)
        metrics |= detection_numbers("segm", _masks(measured.get("box")), categories)
    if "semantic" in wanted:
        one = measured.get("semantic")
        scores = None if one is None else cast("SemanticScores", one.scored.scores)
        metrics |= semantic_numbers(scores, categories)
    if "panoptic" in wanted:
        one = measured.get("panoptic")
        quality = None if one is None else cast("PanopticScores", one.scored.scores).quality
        metrics |= panoptic_numbers(quality, categories)
    return metrics


def _latencies(measured: Mapping[Measure, Measured], naming: Opened) -> dict[str, tuple[float, ...]]:
    """Stages of every image; each folder of records knows the stages up to its own question."""
    known: dict[int, dict[str, float]] = {}
    folders = [one.opened.job.out for one in measured.values()] + [naming.job.out]
    for out in folders:
        for record in Done(out / RECORDS, count_of(naming)):
            known.setdefault(record["i"], {}).update(record["timing"])
    stages: dict[str, list[float]] = {}
    for _, timing in sorted(known.items()):
        for name, ms in timing.items():
            stages.setdefault(name, []).append(ms)
    return {name: tuple(row) for name, row in stages.items()}


def _facts(
    settings: SceneEvaluation, measured: Mapping[Measure, Measured], naming: Opened, identity: Identity
) -> RunFacts:
    done = Done(naming.job.out / RECORDS, count_of(naming))
    facts = facts_of(naming, identity, done, truth="", predictions="")
    spent = [one.outcome.facts for one in measured.values()]
    first = spent[0] if spent else facts
    each = ", ".join(one.opened.job.out.name for one in measured.values())
    return replace(
        facts,
        predictions=f"in the folders {each}, each with a report of its own" if each else "",
        vocabulary=f"scenes, {settings.words} words",
        workers=settings.workers,
        started=first.started,
        seconds=max((f.seconds for f in (*spent, facts)), default=0.0),
        inference_seconds=facts.inference_seconds + sum(f.inference_seconds for f in spent),
        evaluation_seconds=facts.evaluation_seconds + sum(f.evaluation_seconds for f in spent),
    )


def _line(
    settings: SceneEvaluation, naming: Opened, facts: RunFacts, categories: tuple[SceneCategory, ...]
) -> str:
    novel = sum(c.is_novel for c in categories)
    stuff = sum(not c.is_thing for c in categories)
    words = (
        f"{len(categories)} classes asked at once: {len(categories) - novel - stuff} base things, "
        f"{novel} novel things, {stuff} stuff"
    )
    line = report_line(
        naming.job.protocol,
        images=settings.images,
        vocabulary_hash=facts.vocabulary_hash,
        engine=f"ovperception {facts.versions.get('ovperception', '')}",
        split=settings.split,
        templates=facts.templates or None,
        resolution=facts.resolution or None,
        augmentation=facts.augmentation or "none",
    )
    return f"{words}; {line}"


def _parts(categories: tuple[SceneCategory, ...]) -> dict[str, list[int]]:
    things = [c for c in categories if c.is_thing]
    return {
        "base": [c.id for c in things if not c.is_novel],
        "novel": [c.id for c in things if c.is_novel],
    }


def _class_rows(
    measured: Mapping[Measure, Measured],
    boxes: PrecisionRecall | None,
    categories: tuple[SceneCategory, ...],
) -> tuple[ClassRow, ...]:
    columns: dict[str, dict[int, float | None]] = {}
    if boxes is not None:
        columns["box AP"] = boxes.per_class()
        columns["box AP50"] = boxes.per_class(0.5)
    masks = _masks(measured.get("box"))
    if masks is not None:
        columns["mask AP"] = masks.per_class()
    for measure, name in (("semantic", "IoU"), ("panoptic", "PQ"), ("box", "objects")):
        one = measured.get(cast("Measure", measure))
        if one is not None:
            columns[name] = {row.id: row.values.get(name) for row in one.outcome.per_class}
    if not columns:
        return ()
    return tuple(
        ClassRow(
            id=c.id,
            name=c.name,
            groups=("novel" if c.is_novel else "base", "things" if c.is_thing else "stuff"),
            is_thing=c.is_thing,
            values={name: column.get(c.id) for name, column in columns.items()},
        )
        for c in categories
    )


def _breakdowns(metrics: Metrics) -> tuple[Breakdown, ...]:
    """Base beside novel words, and things beside stuff, in every measure that tells them apart."""
    names = {
        "box AP50": "box/AP50_{}",
        "mask AP50": "segm/AP50_{}",
        "mIoU": "semantic/mIoU_{}",
        "PQ": "panoptic/PQ_{}",
        "true boxes named": "region/top1_{}",
        "crops named": "crop/top1_{}",
    }
    found = []
    for name, parts in (("words", ("base", "novel")), ("kind", ("things", "stuff"))):
        rows = {
            part: {
                column: value
                for column, metric in names.items()
                if (value := metrics.get(metric.format(part))) is not None
            }
            for part in parts
        }
        if any(rows.values()):
            found.append(Breakdown(name=name, rows=rows))
    return tuple(found)


def _moved(example: Example, shown: Measured) -> Example:
    """Its picture lies in the folder of the protocol."""
    return replace(example, picture=f"{shown.opened.job.out.name}/{example.picture}")
