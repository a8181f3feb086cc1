"""``ovp eval table``: models side by side on every protocol of the procedural world they can carry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eval.outcome import Outcome
from eval.progress import progress_bar
from eval.protocols import AP, EvaluationProtocol, protocols
from eval.running.asking import LocalAsker, load_model
from eval.running.job import Job
from eval.running.run import run
from ovperception.datasets.scenes import scene
from ovperception.datasets.scenes.vocabulary import scenes_vocabulary
from ovperception.errors import Unsupported
from ovperception.images import write_file

__all__ = ["markdown", "table"]

_FILE = "table.md"
_PROBE = 96


def table(
    out: Annotated[Path, typer.Option(help="Folder of the runs and of table.md.", show_default=False)],
    models: Annotated[str, typer.Option(help="Names, joined by commas.")] = "tiny,tiny-regionclip,tiny-lseg",
    images: Annotated[int, typer.Option("--images", "-n", help="Scenes.")] = 150,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 512,
    device: Annotated[str, typer.Option(help="Where to run.")] = "cpu",
    only: Annotated[str, typer.Option(help="Some protocols of scenes, joined by commas.")] = "",
    workers: Annotated[int, typer.Option("--workers", "-j", help="Processes.")] = 1,
) -> None:
    """Measure models on every protocol of scenes, and write a table in markdown.

    Each picture is looked at once for all protocols. A table that was stopped goes on where it was.
    """
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    rows = [row for row in protocols() if row.data == "scenes" and (not wanted or row.name in wanted)]
    if not rows:
        raise Unsupported("These are no protocols of scenes", field="only", got=only)
    names = [name.strip() for name in models.split(",") if name.strip()]
    found: dict[str, dict[str, Outcome]] = {}
    for name in names:
        model = load_model(name, device)
        jobs = [
            Job(
                model=name,
                protocol=row,
                data="scenes",
                out=out / name / row.name,
                limit=images,
                size=size,
                device=device,
                workers=workers,
            )
            for row in rows
        ]
        asker = LocalAsker(model, jobs[0])
        able = [job for job in jobs if _carries(asker, job.protocol)]
        with progress_bar(name, images) as advance:
            outcomes = run(able, asker=asker, on_image=advance) if able else []
        found[name] = {outcome.protocol: outcome for outcome in outcomes}
    text = markdown(rows, found)
    write_file(out / _FILE, text.encode())
    typer.echo(text)
    typer.echo(f"Written to {out / _FILE}", err=True)


def _carries(asker: LocalAsker, row: EvaluationProtocol) -> bool:
    """Whether a model can be asked what a protocol asks."""
    if row.task not in asker.identity.tasks:
        return False
    return not isinstance(row.metric, AP) or row.metric.iou == "bbox" or _makes_masks(asker)


def _makes_masks(asker: LocalAsker) -> bool:
    picture = scene("val", 0, (_PROBE, _PROBE)).image
    looked = asker.look(picture).scene
    found = looked.detect(scenes_vocabulary(), score_threshold=0.0, max_detections=1)
    return found.masks is not None


def markdown(rows: list[EvaluationProtocol], found: dict[str, dict[str, Outcome]]) -> str:
    """A line a model with the headline of every protocol; then all numbers, a column a model; in percent."""
    lines = [*_headlines(rows, found), "", *_all_numbers(rows, found), "", *_notes(found)]
    return "\n".join(lines) + "\n"


def _headlines(rows: list[EvaluationProtocol], found: dict[str, dict[str, Outcome]]) -> list[str]:
    shown = [row for row in rows if any(row.name in outcomes for outcomes in found.values())]
    heads = [f"{row.title.removeprefix('scenes as ')}: {row.headline}" for row in shown]
    lines = [f"| model | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name, outcomes in found.items():
        cells = [_cell(outcomes.get(row.name), row.headline) for row in shown]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def _all_numbers(rows: list[EvaluationProtocol], found: dict[str, dict[str, Outcome]]) -> list[str]:
    lines = [f"| protocol | metric | {' | '.join(f'`{name}`' for name in found)} |"]
    lines.append("|---|---|" + "---|" * len(found))
    for row in rows:
        known = [outcomes[row.name] for outcomes in found.values() if row.name in outcomes]
        for metric in _told(row, known[0]) if known else ():
            cells = [_cell(outcomes.get(row.name), metric) for outcomes in found.values()]
            lines.append(f"| {row.title} | {metric} | {' | '.join(cells)} |")
    return lines


def _told(row: EvaluationProtocol, outcome: Outcome) -> list[str]:
    """The headline and the numbers of the parts of the vocabulary."""
    family = row.headline.partition("_")[0]
    parts = [f"{family}_{part}" for part in row.groups] + [f"{family}{part}" for part in row.groups]
    chosen = [row.headline, family, *parts]
    return [name for name in dict.fromkeys(chosen) if name in outcome.metrics]


def _cell(outcome: Outcome | None, metric: str) -> str:
    if outcome is None:
        return ""
    value = outcome.metrics.get(metric)
    return "n/a" if value is None else f"{100 * value:.1f}"


def _notes(found: dict[str, dict[str, Outcome]]) -> list[str]:
    outcomes = [outcome for by_name in found.values() for outcome in by_name.values()]
    if not outcomes:
        return []
    facts = outcomes[0].facts
    spent = sum(outcome.facts.evaluation_seconds for outcome in outcomes)
    asked = sum(max((o.facts.inference_seconds for o in by.values()), default=0) for by in found.values())
    return [
        f"{len(outcomes[0].images)} scenes of the {facts.split} split, {facts.seed}; {facts.commit[:12]}; "
        f"judging took {100 * spent / max(asked + spent, 1e-9):.1f} % of the time."
    ]
