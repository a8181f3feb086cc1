"""`ovp features`: what a frozen backbone sees, computed once and kept for training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ovperception.errors import InvalidCheckpoint, InvalidParameter

if TYPE_CHECKING:
    from ovperception.datasets.problems import OnProblem
    from ovperception.model import Model
    from ovperception.training.data_settings import DataSettings
    from ovperception.training.feature_cache import ExportSettings, FeatureCache
    from ovperception.training.labelled_batches import LabelledViews

__all__ = ["app"]

app = typer.Typer(
    help="Keep the features of a frozen backbone for training.", no_args_is_help=True, add_completion=False
)

_Folder = Annotated[Path, typer.Argument(help="Folder of the features.", show_default=False)]
_Truth = Literal["", "instances", "panoptic", "labels"]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _features() -> None:
    """Keep the features of a frozen backbone for training."""


@app.command("export")
def export(
    out: Annotated[Path, typer.Option(help="Folder to write; an unfinished export goes on.")],
    model: Annotated[str, typer.Option(help="Model whose backbone and preprocessing to use.")] = "tiny",
    images: Annotated[Path | None, typer.Option(help="Folder of your pictures.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="COCO-format file of their truth.")] = None,
    maps: Annotated[Path | None, typer.Option(help="Folder of panoptic or label PNGs.")] = None,
    data: Annotated[str, typer.Option(help="Name of a data set instead of files.")] = "",
    root: Annotated[Path | None, typer.Option(help="Where that data set lies.")] = None,
    split: Annotated[str, typer.Option(help="Split of that data set.")] = "",
    truth: Annotated[_Truth, typer.Option(help="What to learn from; empty: what says most.")] = "",
    vocabulary: Annotated[str, typer.Option(help="Learn only these classes: a list's name or path.")] = "",
    size: Annotated[int, typer.Option(help="Side of the views in pixels.")] = 512,
    scales: Annotated[str, typer.Option(help="Smallest and largest scale of the jitter.")] = "0.5,2.0",
    colour: Annotated[bool, typer.Option("--colour", help="Change colours, too.")] = False,
    views: Annotated[int, typer.Option(min=1, help="Augmented views of each picture.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the augmentation.")] = 0,
    dtype: Annotated[Literal["fp16", "bf16"], typer.Option(help="Type the features are kept in.")] = "fp16",
    stages: Annotated[str, typer.Option(help="Maps to keep, such as res3,res4,res5; all if empty.")] = "",
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Compute in bfloat16.")] = False,
    float16: Annotated[bool, typer.Option("--float16", help="Compute in float16.")] = False,
    device: Annotated[str, typer.Option(help="Where to compute.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Views the backbone sees at once.")] = 8,
    workers: Annotated[int, typer.Option("--workers", "-j", min=0, help="Processes that read.")] = 1,
    part: Annotated[str, typer.Option(help="K/N: only every N-th shard from the K-th.")] = "0/1",
    on_wrong: Annotated[Literal["skip", "stop"], typer.Option(help="At a picture that is no use.")] = "skip",
) -> None:
    """Compute the features of every view once and keep them.

    Each shard is written whole or not at all: after a kill or a full disk the same command goes on. Processes
    with --part 0/4, 1/4, ... share the work.

    Example: `ovp features export --images pictures --annotations instances.json --size 256 --out features`.
    """
    from ovperception.model import load
    from ovperception.training.data_settings import DataSettings
    from ovperception.training.devices import own_device
    from ovperception.training.feature_cache import ExportSettings

    files = DataSettings(
        images=images, annotations=annotations, maps=maps, truth=truth, vocabulary=vocabulary
    )
    source = replace(files, name=data, root=root, split=split)
    chosen = load(model, device=own_device(device))
    seen = _views(source, chosen, size, scales, colour=colour, views=views, seed=seed, on_wrong=on_wrong)
    how = ExportSettings(dtype=dtype, bfloat16=bfloat16, float16=float16, batch_size=batch_size)
    how = replace(how, stages=tuple(stages.split(",")) if stages else None, part=_part(part), workers=workers)
    _export(seen, chosen, out, how, on_wrong)


def _views(
    source: DataSettings,
    model: Model,
    size: int,
    scales: str,
    *,
    colour: bool,
    views: int,
    seed: int,
    on_wrong: OnProblem,
) -> LabelledViews:
    """The pictures as the training will see them."""
    from ovperception.training.augmentations import Augmentation
    from ovperception.training.data_settings import open_training_images
    from ovperception.training.labelled_batches import LabelledViews

    low, high = _two(scales, ",", float, "scales")
    return LabelledViews(
        source=open_training_images(source, on_problem=on_wrong),
        augmentation=Augmentation.large_scale_jitter((size, size), (low, high), colour=colour),
        preprocessing=model.preprocessing,
        seed=seed,
        views=views,
    )


def _export(
    views: LabelledViews, model: Model, out: Path, settings: ExportSettings, on_wrong: OnProblem
) -> None:
    """Write what is missing, and say what was left out."""
    from ovperception.training.feature_cache import export_features
    from ovperception.training.wrong_data import WrongData, WrongDataPolicy

    wrong = WrongData(WrongDataPolicy(policy=on_wrong))
    cache = export_features(views, model.backbone, out, settings, wrong=wrong, on_shard=_tell)
    for line in (*views.source.left_out().lines(), *wrong.lines()):
        typer.echo(f"left out: {line}", err=True)
    typer.echo(_line(cache))


def _part(text: str) -> tuple[int, int]:
    number, count = _two(text, "/", int, "part")
    return int(number), int(count)


@app.command("verify")
def verify(folder: _Folder) -> None:
    """Read every byte and compare it with its checksum; 0 if all is as it was written."""
    from ovperception.training.feature_cache import open_cache

    faults = open_cache(folder, whole=False).faults()
    for fault in faults:
        typer.echo(f"{fault.path} {fault.what}", err=True)
    if faults:
        raise InvalidCheckpoint(
            f"{len(faults)} shards of {folder} are not as they were written",
            field="FOLDER",
            mend="Remove them, with the .json beside them, and export again: only they are made anew",
        )
    typer.echo(f"{folder} is whole")


@app.command("show")
def show(folder: _Folder, as_json: _Json = False) -> None:
    """Say what a folder of features was made of."""
    from ovperception.training.feature_cache import open_cache

    cache = open_cache(folder, whole=False)
    if as_json:
        missing = len(cache.missing)
        facts = {"views": len(cache), "bytes": cache.nbytes, "shards": len(cache.shards), "missing": missing}
        typer.echo(json.dumps(facts | {"key": cache.key.to_dict()}))
        return
    typer.echo(_line(cache))
    for name, value in cache.key.to_dict().items():
        typer.echo(f"  {name}: {value}")


def _tell(path: Path) -> None:
    typer.echo(f"wrote {path}", err=True)


def _line(cache: FeatureCache) -> str:
    missing = len(cache.missing)
    state = f", {missing} of {len(cache.shards)} shards missing" if missing else ""
    return (
        f"{cache.folder}: {cache.key.views} views of {cache.key.pictures} pictures, "
        f"{cache.nbytes / 1e6:.1f} MB{state}"
    )


def _two(text: str, mark: str, kind: type[int] | type[float], name: str) -> tuple[int | float, int | float]:
    try:
        first, second = (kind(word) for word in text.split(mark))
    except ValueError as error:
        raise InvalidParameter(
            f"{name} needs two numbers", field=name, expected=f"such as 0{mark}4", got=text
        ) from error
    return first, second
