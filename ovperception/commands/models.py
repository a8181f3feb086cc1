"""``ovp models``: lists, describes and fetches models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovperception.bundle import ModelCard, read_card
from ovperception.catalogue import (
    BUILT_IN,
    CatalogueEntry,
    built_in_path,
    cache_dir,
    entries,
    entry,
    locate,
    on_this_machine,
    pulled_path,
)
from ovperception.errors import InvalidCheckpoint, OVPError, Unavailable

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["app"]

app = typer.Typer(help="List, describe and fetch models.", add_completion=False)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def list_models(context: typer.Context, as_json: _Json = False) -> None:
    """List the models that have a name."""
    if context.invoked_subcommand is not None:
        return
    rows = _rows()
    if as_json:
        typer.echo(json.dumps({"models": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), expand=True)
    for column in ("name", "weights", "score"):
        table.add_column(column, no_wrap=True)
    table.add_column("licence", ratio=1)
    for row in rows:
        first = next((f"{name} {score:.1f}" for name, score in row["scores"].items()), "")
        table.add_row(row["name"], row["state"], first, row["licence"])
    Console().print(table)
    typer.echo("\n`ovp models show NAME` tells more; `ovp models pull NAME` fetches the weights.")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A model's name, or the path of a bundle.")],
    as_json: _Json = False,
) -> None:
    """Print a model's card: origin, licence, what was verified, scores."""
    found = _describe(name)
    if as_json:
        typer.echo(json.dumps(found))
        return
    from rich.console import Console

    Console().print(_card_table(found))


@app.command("pull")
def pull(
    name: Annotated[str, typer.Argument(help="A model of `ovp models`.")],
    url: Annotated[
        str, typer.Option(help="Fetch from here instead: a mirror, or file:///...", show_default=False)
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is here already.")] = False,
    as_json: _Json = False,
) -> None:
    """Fetch a published model's weights; what was broken off is resumed."""
    from rich.console import Console

    console = Console(stderr=True, quiet=as_json)
    if name in BUILT_IN:
        _report(name, locate(name), as_json, fetched=False)
        return
    found = entry(name)
    path = pulled_path(name)
    if path.is_file() and not force:
        _report(name, path, as_json, fetched=False)
        return
    console.print(f"{found.name}: {found.summary}", highlight=False)
    console.print(f"Licence: {found.licence}", highlight=False)
    _fetch(found, url or found.url, console, again=force)
    _report(name, path, as_json, fetched=True)


def _fetch(found: CatalogueEntry, url: str, console: Any, *, again: bool) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from ovperception.conversion import converter
    from ovperception.download import download

    if found.format:
        converter(found.format)  # what is missing here is said before gigabytes are fetched
    checkpoint = cache_dir() / "downloads" / found.file_name
    if not checkpoint.is_file() or again:  # it stays there if the conversion was broken off
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        try:
            with Progress(*columns, console=console, transient=True) as bar:
                task = bar.add_task(found.name, total=None)
                download(
                    url,
                    checkpoint,
                    sha256=found.sha256,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )
        except Unavailable as error:
            raise _by_hand(error, found) from error
    console.print(f"Converting {checkpoint.name}", highlight=False)
    try:
        _install(found, checkpoint)
    except InvalidCheckpoint as error:
        checkpoint.unlink(missing_ok=True)
        raise InvalidCheckpoint(
            f"What was fetched is not {found.name}: {error.what}",
            expected=error.expected,
            got=error.got,
            mend=f"It was deleted; open {found.url} in a browser, then run `{found.convert_command}`",
        ) from error
    checkpoint.unlink(missing_ok=True)


def _install(found: CatalogueEntry, fetched: Path) -> None:
    """Make the bundle that the name finds of what was fetched."""
    path = pulled_path(found.name)
    if not found.format:
        _refuse_another(found, read_card(fetched))
        path.parent.mkdir(parents=True, exist_ok=True)
        fetched.replace(path)
        return
    from ovperception.conversion import convert_file

    def target(card: ModelCard) -> Path:
        _refuse_another(found, card)
        return path

    convert_file(fetched, target, format_name=found.format, vocabulary=found.vocabulary)


def _refuse_another(found: CatalogueEntry, card: ModelCard) -> None:
    if card.name != found.name:
        raise InvalidCheckpoint("It is another model", expected=found.name, got=card.name)


def _by_hand(error: Unavailable, found: CatalogueEntry) -> Unavailable:
    hand = f"Or download {found.url} by hand as {found.file_name} and run `{found.convert_command}`"
    return Unavailable(
        error.what,
        field=error.field,
        expected=error.expected,
        got=error.got or None,
        mend=f"{error.mend}. {hand}",
    )


def _report(name: str, path: Path, as_json: bool, *, fetched: bool) -> None:
    if as_json:
        typer.echo(
            json.dumps({"name": name, "path": str(path), "bytes": path.stat().st_size, "fetched": fetched})
        )
        return
    typer.echo(f"{name} is {'now' if fetched else 'already'} here: {path}")
    typer.echo(f"Next: ovp predict IMAGE --model {name} --classes 'dog,cat'")


def _rows() -> list[dict[str, Any]]:
    here = on_this_machine()
    rows = [_row_of_file(name, built_in_path(name), "built in") for name in BUILT_IN]
    for found in entries().values():
        rows.append(
            {
                "name": found.name,
                "state": "pulled" if found.name in here else "not pulled",
                "path": str(here[found.name]) if found.name in here else None,
                "summary": found.summary,
                "licence": found.licence,
                "scores": found.scores,
            }
        )
    rows += [_row_of_file(n, p, "converted") for n, p in here.items() if n not in entries()]
    return rows


def _row_of_file(name: str, path: Path, state: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "state": state, "path": str(path)}
    try:
        card = read_card(path)
    except OVPError as error:  # one broken file must not hide the others
        return row | {"state": "unreadable", "summary": error.what, "licence": "", "scores": {}}
    return row | {"summary": card.summary, "licence": card.licence, "scores": card.scores}


def _describe(name: str) -> dict[str, Any]:
    """The card of a model that is here, or what the catalogue says of one that is not."""
    if name in entries() and not pulled_path(name).is_file():
        found = entries()[name]
        return {"name": name, "state": "not pulled", "path": None} | found.model_dump(
            mode="json", exclude={"name"}
        )
    path = locate(name)
    return {"name": name, "state": "here", "path": str(path), "bytes": path.stat().st_size} | read_card(
        path
    ).model_dump(mode="json")


_ORDER = (
    *("name", "version", "summary", "state", "path", "backbone", "heads", "head", "parameters"),
    *(
        "backbone_parameters",
        "vocabulary",
        "templates",
        "template_rule",
        "panoptic_rule",
        "licence",
        "paper",
        "code",
        "source",
        "url",
        "sha256",
    ),
    *("scores", "verified", "deviations"),
)


def _card_table(found: dict[str, Any]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key in _ORDER:
        if text := _text(key, found.get(key)):
            table.add_row(key.replace("_", " "), Text(text))
    return table


def _text(key: str, value: Any) -> str:
    if key == "backbone" and isinstance(value, dict):
        lent = value["name"].startswith("bundle:")
        held = "in the bundle" if value["included"] else "of that model" if lent else "fetched by name"
        return f"{value['name']}, {held}, digest {value['digest'][:16] or 'unknown'}"
    if key == "heads":
        return ", ".join(head["name"] for head in value or ())
    if key == "scores":
        return "\n".join(f"{name}: {number:g}" for name, number in (value or {}).items())
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return "\n".join(value)
    return str(value or "")
