"""``ovp convert``: turns an official checkpoint into a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ovperception.catalogue import pulled_path
from ovperception.conversion import Companions, Conversion, StoredDtype, convert_file, converter
from ovperception.errors import InvalidParameter

__all__ = ["convert"]


_Checkpoint = Annotated[Path, typer.Argument(help="The official file.", show_default=False)]
_Format = Annotated[str, typer.Option("--format", help="Whose checkpoint it is: fcclip, lseg or regionclip.")]
_Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="The bundle to write; by default it is kept under its name.", show_default=False
    ),
]
_Name = Annotated[
    str, typer.Option(help="What the model is called; by default as published.", show_default=False)
]
_IncludeBackbone = Annotated[
    bool,
    typer.Option(
        "--include-backbone/--reference-backbone",
        help="Keep the frozen CLIP in the bundle, or refer to the published one by name and digest.",
    ),
]
_Dtype = Annotated[StoredDtype, typer.Option(help="How weights are stored.")]
_Vocabulary = Annotated[
    str,
    typer.Option(
        help="What it was trained with, by name or file; by default as published.", show_default=False
    ),
]
_Rpn = Annotated[
    Path | None,
    typer.Option(
        help="regionclip: take the proposals from this RPN's checkpoint instead.", show_default=False
    ),
]
_Clip = Annotated[
    Path | None,
    typer.Option(
        help="regionclip: CLIP weights for a checkpoint without text tower; by default fetched.",
        show_default=False,
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def convert(
    checkpoint: _Checkpoint,
    format_name: _Format,
    out: _Out = None,
    name: _Name = "",
    include_backbone: _IncludeBackbone = True,
    dtype: _Dtype = "float32",
    vocabulary: _Vocabulary = "",
    rpn: _Rpn = None,
    clip: _Clip = None,
    force: _Force = False,
    as_json: _Json = False,
) -> None:
    """Turn an official checkpoint into a bundle. Nothing in the checkpoint is executed."""
    converter(format_name)  # an unknown format is said before anything is read
    if name:
        pulled_path(name)  # as is a name that cannot be one
    if out is not None:
        _refuse_to_overwrite(out, checkpoint, force)
    done = convert_file(
        checkpoint,
        lambda card: _target(card.name, out, checkpoint, force),
        format_name=format_name,
        name=name,
        vocabulary=vocabulary,
        companions=Companions(rpn=rpn, clip=clip),
        include_backbone=include_backbone,
        dtype=dtype,
    )
    if as_json:
        typer.echo(json.dumps(_as_json(done)))
    else:
        _print(done, named=out is None)


def _target(name: str, out: Path | None, checkpoint: Path, force: bool) -> Path:
    if out is not None:
        return out
    target = pulled_path(name)
    _refuse_to_overwrite(target, checkpoint, force)
    return target


def _refuse_to_overwrite(out: Path, checkpoint: Path, force: bool) -> None:
    if out.suffix != ".safetensors":
        raise InvalidParameter(
            "A bundle is a .safetensors file", field="out", expected=f"{out.stem}.safetensors", got=out
        )
    if not out.exists():
        return
    if out.is_dir():
        raise InvalidParameter(f"{out} is a folder", field="out", expected="the path of a file")
    if checkpoint.exists() and out.samefile(checkpoint):
        raise InvalidParameter("The bundle would replace the checkpoint itself", field="out", got=out)
    if not force:
        raise InvalidParameter(
            f"{out} exists already", field="out", mend="Give another --out, or --force to replace it"
        )


def _as_json(done: Conversion) -> dict[str, object]:
    return {
        "path": str(done.path),
        "name": done.card.name,
        "published": done.published,
        "heads": [head.name for head in done.card.heads],
        "backbone": done.card.backbone.model_dump(include={"name", "digest", "included"}),
        "vocabulary": done.card.vocabulary,
        "keys_read": done.keys_read,
        "bytes": done.nbytes,
    }


def _print(done: Conversion, *, named: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    backbone = done.card.backbone
    where = "in the bundle" if backbone.included else "fetched by name"
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in (
        ("model", f"{done.card.name} ({done.published})"),
        ("keys read", f"{done.keys_read}, all shapes as published"),
        ("backbone", f"{backbone.name}, {where}, digest {backbone.digest[:16]}"),
        ("seen words", done.card.vocabulary),
        ("licence", done.card.licence),
        ("bundle", f"{done.path} ({done.nbytes / 1e6:.1f} MB)"),
        (
            "next",
            f"ovp predict IMAGE --model {done.card.name if named else done.path}{_task(done)}"
            " --classes 'dog,cat'",
        ),
    ):
        table.add_row(label, Text(value))
    Console().print(table)


def _task(done: Conversion) -> str:
    """What `ovp predict` has to be told, where the head does not do what it asks for by default."""
    from ovperception.plugins import head_factory

    tasks = getattr(head_factory(done.card.heads[0].name), "tasks", None)
    if not isinstance(tasks, frozenset) or not tasks or "detect" in tasks:
        return ""
    return f" --task {min(tasks)}"
