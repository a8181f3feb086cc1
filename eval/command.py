"""``ovp eval``: measures a model, or a result file of somebody else, and writes what it found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast, get_args

import typer

from eval import protocol_command, table_command
from eval.protocols.other_metric import METRIC_NAMES
from eval.reporting import compare_command
from eval.running.job import ResolutionChoice
from eval.scenes.command import evaluate_own_measures
from eval.scenes.settings import MEASURES
from ovperception.datasets.scenes.vocabulary import Part
from ovperception.errors import InvalidParameter
from ovperception.view_options import VIEWS_HELP, views_of

if TYPE_CHECKING:
    from ovperception.model import Model

__all__ = ["app", "evaluate", "load_model"]

app = typer.Typer(add_completion=False, help="Measure a model, score files, or compare two measured runs.")
app.command("compare")(compare_command.compare)
app.command("table")(table_command.table)


def load_model(name: str, device: str) -> Model:
    """A model by name or path."""
    import ovperception as ovp

    return ovp.load(name, device=device)


T = TypeVar("T")
_FILES, _SCENES = "Files of others", "scenes alone"


@app.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Name in the catalogue, or path of a bundle.", show_default=False),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; a run that was stopped goes on there.", show_default=False),
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", "-p", help="How to measure; the first one of the data if not given.")
    ] = "",
    metric: Annotated[
        str,
        typer.Option(
            help=f"Another metric than the protocol's: {', '.join(METRIC_NAMES)}.", show_default=False
        ),
    ] = "",
    protocols: Annotated[bool, typer.Option("--protocols", help="List the protocols.")] = False,
    data: Annotated[
        str,
        typer.Option(help="Data set by name, a COCO-format JSON, or a folder of label maps."),
    ] = "",
    root: Annotated[
        Path | None,
        typer.Option(help="Where it lies; of a JSON or label maps, the pictures.", show_default=False),
    ] = None,
    split: Annotated[str | None, typer.Option(help="The protocol's if not given.")] = None,
    limit: Annotated[int | None, typer.Option(help="Judge the first images only.")] = None,
    server: Annotated[str, typer.Option(help="Ask HOST:PORT; --model names a model there.")] = "",
    workers: Annotated[int, typer.Option("--workers", "-j", help="Processes.")] = 1,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1.")] = "cpu",
    resolution: Annotated[
        str, typer.Option(help="Of the pictures: the protocol's, or left to the model.")
    ] = "protocol",
    views: Annotated[str, typer.Option(help=VIEWS_HELP, show_default=False)] = "",
    classes: Annotated[
        Path | None, typer.Option(help="File of the class list, for a folder of label maps.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON, 0-1.")] = False,
    annotations: Annotated[
        Path | None, typer.Option(help="Score files: the truth, a JSON or a folder.", rich_help_panel=_FILES)
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Score files: the answers.", rich_help_panel=_FILES)
    ] = None,
    annotation_maps: Annotated[
        Path | None, typer.Option(help="PNGs of a panoptic truth.", rich_help_panel=_FILES)
    ] = None,
    result_maps: Annotated[
        Path | None, typer.Option(help="PNGs of panoptic answers.", rich_help_panel=_FILES)
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", "-n", help="How many scenes; 500.", rich_help_panel=_SCENES)
    ] = None,
    first: Annotated[int, typer.Option(help="Index of the first scene.", rich_help_panel=_SCENES)] = 0,
    size: Annotated[int, typer.Option(help="Side in pixels.", rich_help_panel=_SCENES)] = 512,
    words: Annotated[
        Part,
        typer.Option(help="Classes asked and judged, without a protocol.", rich_help_panel=_SCENES),
    ] = "all",
    only: Annotated[
        str,
        typer.Option(
            help=f"Some of {','.join(MEASURES)}, without a protocol; all if not given.",
            show_default=False,
            rich_help_panel=_SCENES,
        ),
    ] = "",
    crops: Annotated[
        int, typer.Option(help="Drawn crops of each thing, for crop/top1.", rich_help_panel=_SCENES)
    ] = 3,
) -> None:
    """Measure a model by a named protocol, or score files that somebody else made.

    On "scenes", the built-in procedural world, nothing is downloaded; without a protocol it measures
    everything at once: zero-shot accuracy of crops and of true boxes, COCO AP of boxes and masks, mIoU, PQ.
    """
    if context.invoked_subcommand is not None:
        return
    if protocols:
        protocol_command.list_protocols(as_json=as_json)
        return
    folder = _needed(out, "out", "--out FOLDER")
    if annotations is not None or results is not None:
        _refuse_beside_files(
            {"model": model, "server": server, "data": data, "root": root, "split": split}
            | {"limit": limit, "images": images, "classes": classes, "only": only, "views": views}
        )
        protocol_command.score(
            _needed(protocol or None, "protocol", "--protocol NAME"),
            _needed(annotations, "annotations", "--annotations FILE_OR_FOLDER"),
            _needed(results, "results", "--results FILE_OR_FOLDER"),
            folder,
            metric=metric,
            annotation_maps=annotation_maps,
            result_maps=result_maps,
            as_json=as_json,
        )
        return
    if not server:
        _needed(model or None, "model", "--model NAME")
    if not protocol and not metric and data in ("", "scenes") and not server:
        _refuse_without_protocol(views)
        evaluate_own_measures(
            lambda: load_model(model, device),
            folder,
            split=split or "val",
            images=500 if images is None and limit is None else images or limit or 0,
            first=first,
            size=size,
            words=words,
            only=only,
            crops=crops,
            workers=workers,
            as_json=as_json,
        )
        return
    if resolution not in get_args(ResolutionChoice):
        raise InvalidParameter(
            "There is no such resolution",
            field="resolution",
            expected=" or ".join(get_args(ResolutionChoice)),
            got=resolution,
        )
    job = protocol_command.job_of(
        protocol,
        data,
        metric,
        model=model,
        out=folder,
        root=root,
        split=split,
        words=classes,
        limit=images if limit is None else limit,
        first=first,
        size=size,
        device=device,
        server=server,
        resolution=cast("ResolutionChoice", resolution),
        views=views_of(views) if views else None,
        workers=workers,
    )
    protocol_command.run_protocol(job, as_json=as_json)


def _refuse_beside_files(options: Mapping[str, object]) -> None:
    """Files are scored whole and by the protocol alone; an option that changed nothing would mislead."""
    given = [f"--{name}" for name, value in options.items() if value not in (None, "")]
    if given:
        raise InvalidParameter(
            "Files of results are scored as they are",
            field=given[0].removeprefix("--"),
            expected="--protocol, --metric, --annotations and --results",
            got=" ".join(given),
            mend="Leave it out",
        )


def _refuse_without_protocol(views: str) -> None:
    if views:
        raise InvalidParameter(
            "Views are of the head that answers a protocol",
            field="views",
            expected="--protocol NAME",
            mend="Name one, such as scenes_semantic, or leave the views out",
        )


def _needed(value: T | None, field: str, option: str) -> T:
    # Not required by the parser, which would ask a sub-command for them as well.
    if value is None:
        raise InvalidParameter(
            f"--{field} is missing",
            field=field,
            expected=option,
            mend="`ovp eval --model NAME --out FOLDER` is the least; `ovp eval --help` tells more",
        )
    return value
