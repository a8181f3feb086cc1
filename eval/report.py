"""What a run leaves behind: `metrics.json`, and `report.md` with all that is needed to repeat it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from eval.crops import CONTEXT
from eval.scenes import Metrics, SceneEvaluation
from ovperception.datasets.scenes import scene_seed
from ovperception.datasets.scenes.splits import VERSION as SCENES_VERSION
from ovperception.datasets.scenes.vocabulary import chosen_categories, scenes_vocabulary
from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from rich.table import Table

    from ovperception.model import Model

__all__ = [
    "METRICS_FILE",
    "REPORT_FILE",
    "Facts",
    "commit",
    "facts",
    "installed",
    "prepare_folder",
    "table",
    "write_report",
]

METRICS_FILE = "metrics.json"
REPORT_FILE = "report.md"

_ENGINES = ("ovperception", "torch", "open-clip-torch", "pycocotools", "numpy")

_RULES = {
    "crop": (
        "Zero-shot top-1 of single things with the backbone alone, among the names of all judged things; a "
        "class scores as its best synonym. `top1`: drawn crops, seeded by class and number. `top1_scene`: "
        f"cut from the scenes by the true box grown by {CONTEXT:.0%} of its side on each side, every "
        "visible thing however small, squashed to the backbone's size. Share of crops, not mean of classes."
    ),
    "region": (
        "Zero-shot naming of the true boxes of things, nothing to be found. `top1`: the nearest name of all "
        "judged things to the box's embedding, every visible thing however small; share of boxes, not mean "
        "of classes. `AP50`: the boxes given to the model's region head, its scores judged as in `box`; n/a "
        "where no head classifies given boxes."
    ),
    "box": (
        "COCO AP of boxes by pycocotools, generalised: one run with all words, then means over classes of "
        "each part that have ground truth. At most 100 detections an image are asked for, with score "
        "threshold 0; detections of stuff are dropped after that."
    ),
    "segm": "The same of masks; boxes are stripped from the records first, so areas are those of the masks.",
    "semantic": (
        "One confusion matrix over the set at the scenes' own resolution, every pixel judged; means over "
        "classes that have ground-truth pixels (detectron2's rule). Score threshold 0; a pixel left "
        "undecided is missed. Base is base things and stuff."
    ),
    "panoptic": (
        "panopticapi's rules: a match is IoU above 0.5 in one class; means over classes with TP + FP + FN "
        "above 0. The model's own thresholds. Base is base things and stuff."
    ),
    "timing": (
        "Median milliseconds an image, results as numpy arrays; `encode` from the decoded picture, one "
        "backbone pass for all questions; `text` is once for the vocabulary and includes the embedding cache."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was measured, with what, as rows of (name, value)."""

    model: tuple[tuple[str, str], ...]
    data: tuple[tuple[str, str], ...]
    engine: tuple[tuple[str, str], ...]


def facts(model: Model, settings: SceneEvaluation) -> Facts:
    """Gathers what a reader needs to repeat a run."""
    vocabulary = scenes_vocabulary(settings.words)
    categories = chosen_categories(settings.words)
    novel = sum(c.is_novel for c in categories)
    stuff = sum(not c.is_thing for c in categories)
    seed = scene_seed(settings.split, settings.first)
    defaults = ", ".join(f"{k} {v:g}" for k, v in sorted(model.card.defaults.items()))
    return Facts(
        model=(
            ("model", f"{model.name}, version {model.version}"),
            ("digest of its weights", model.digest),
            ("backbone", f"{model.spec.name}, {model.spec.image_size} px"),
            ("digest of the backbone", model.spec.digest),
            ("preprocessing", json.dumps(model.card.preprocessing, sort_keys=True)),
            ("default thresholds", defaults or "none"),
            ("device", str(model.device)),
        ),
        data=(
            ("data", f"scenes {SCENES_VERSION}, split {settings.split}"),
            ("images", f"{settings.images}, from index {settings.first}, seeds {seed} and up"),
            ("size", f"{settings.size} x {settings.size}; no test-time augmentation"),
            (
                "words",
                f"{settings.words}: {len(categories)} classes, {len(categories) - novel - stuff} base "
                f"things, {novel} novel things, {stuff} stuff; others are not judged",
            ),
            ("vocabulary hash", vocabulary.content_hash),
            ("templates", _templates(vocabulary.templates or model.card.templates)),
            ("crops of each thing", str(settings.crops_per_class)),
            ("measured", ", ".join(settings.only) if settings.only else "all"),
        ),
        engine=(
            *((name, installed(name)) for name in _ENGINES),
            ("opencv", cv2.__version__),  # one library, several distributions
            ("python", platform.python_version()),
            ("commit", commit() or "not in a git checkout"),
        ),
    )


def _templates(templates: str | Sequence[str]) -> str:
    return templates if isinstance(templates, str) else "; ".join(templates)


def installed(name: str) -> str:
    """Version of a library; says so if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str | None:
    """The commit of the checkout this code runs from, marked if it was changed since; None elsewhere."""
    here = Path(__file__).resolve()
    try:
        # An installed copy may lie inside a checkout of something else.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        head = _git(here.parent, "rev-parse", "HEAD")
        changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head} with changes" if changed else head


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


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
        raise _unusable(out, error) from error


def write_report(out: Path, metrics: Metrics, about: Facts) -> None:
    """Write `metrics.json` and `report.md`; older ones are replaced.

    Raises:
        InvalidParameter: the folder cannot be written.
    """
    try:
        (out / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        (out / REPORT_FILE).write_text(_markdown(metrics, about), encoding="utf-8")
    except OSError as error:
        raise _unusable(out, error) from error


def _unusable(out: Path, error: OSError) -> InvalidParameter:
    return InvalidParameter(
        "The output folder cannot be written",
        field="out",
        expected="a folder, or a path where one can be made",
        got=f"{out} ({error.strerror or error})",
        mend="Name another folder",
    )


def _groups(metrics: Metrics) -> dict[str, dict[str, float | None]]:
    groups: dict[str, dict[str, float | None]] = {}
    for name, value in metrics.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = value
    return groups


def _shown(group: str, value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:.1f}" if group == "timing" else f"{100 * value:.2f}"


def _markdown(metrics: Metrics, about: Facts) -> str:
    lines = [f"# {dict(about.model)['model']} on {dict(about.data)['data']}", ""]
    lines += [f"Qualities in percent, times in milliseconds; `{METRICS_FILE}` has them 0-1 and in full.", ""]
    for group, rows in _groups(metrics).items():
        lines += [f"## {group}", "", _RULES.get(group, ""), "", "| | |", "|---|---:|"]
        lines += [f"| {name} | {_shown(group, value)} |" for name, value in rows.items()]
        lines.append("")
    for title, facts_ in (("Model", about.model), ("Data and words", about.data), ("Engines", about.engine)):
        lines += [f"## {title}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_cell(value)} |" for name, value in facts_]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(metrics: Metrics, title: str) -> Table:
    """The metrics for a terminal: qualities in percent, times in milliseconds."""
    from rich.table import Table

    groups: Mapping[str, Mapping[str, float | None]] = _groups(metrics)
    shown = Table(title=title, title_justify="left")
    shown.add_column("metric")
    shown.add_column("%", justify="right")
    for group, rows in groups.items():
        for name, value in rows.items():
            unit = " ms" if group == "timing" and value is not None else ""
            shown.add_row(f"{group}/{name}", _shown(group, value) + unit)
        shown.add_section()
    return shown
