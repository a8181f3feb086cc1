"""`ovp train`: run a recipe, stop it, take it up again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from ovperception.training.recipes import Recipe

__all__ = ["train"]


def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="name of a recipe, or a file RECIPE.toml")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="settings to change, such as steps=500 device=cuda"),
    ] = None,
    known: Annotated[bool, typer.Option("--list", help="list the recipes with a name and stop")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "--show", help="check names, print the resolved recipe as TOML and stop"),
    ] = False,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves it to torch")] = 0,
) -> None:
    """Train a model from a recipe.

    A run lives in a folder (out=FOLDER). Ctrl-C or SIGTERM stops it after the step in progress, and the same
    command takes it up again; so it does after a crash, from the last checkpoint. A recipe file is TOML: the
    recipe it begins from (recipe = "tiny-fcclip") and what is different. On many devices:
    `torchrun --nproc-per-node 8 -m ovperception train RECIPE device=cuda`.

    Examples: `ovp train tiny-clip`, then `ovp train tiny-fcclip minutes=40`, then `ovp predict IMAGE
    --model runs/tiny-fcclip/tiny.safetensors --classes "taxi,cat"`.
    """
    if known:
        Console().print(_table())
        return
    if recipe is None:
        raise InvalidParameter(
            "Which recipe?",
            field="RECIPE",
            expected="a name or a file",
            mend="`ovp train --list` lists the names",
        )
    # Before torch is loaded: it would warn, once a process, that looking for unused parameters takes time.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from ovperception.training.recipe_check import check_recipe

    chosen, settings = _resolved(recipe, dict(_pair(word) for word in overrides or ()))
    check_recipe(settings)
    if dry_run:
        from ovperception.training.recipe_files import to_toml

        typer.echo(to_toml(settings, recipe=settings.name), nl=False)
        return
    _run(chosen, settings, threads)


def _run(chosen: Recipe, settings: Any, threads: int) -> None:
    import torch

    from ovperception.training.stopping import RunStopped

    if threads:
        torch.set_num_threads(threads)
    console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")  # one of several speaks
    try:
        path = chosen.run(settings)
    except RunStopped as stop:
        console.print(f"[yellow]{stop}[/]; the same command takes it up again", highlight=False)
        raise typer.Exit(128 + stop.signal_number) from None  # as a shell tells of a signal
    console.print(f"[green]wrote[/] {path}", highlight=False)


def _resolved(recipe: str, words: dict[str, str]) -> tuple[Recipe, Any]:
    """The recipe and its settings: those with the name, then the file's, then the words'."""
    from ovperception.training.recipe_files import merge, read_file, with_overrides
    from ovperception.training.recipes import known_recipes

    changes: dict[str, Any] = {}
    name, recipes = recipe, known_recipes()
    if recipe not in recipes and (recipe.endswith(".toml") or Path(recipe).is_file()):
        name, changes = read_file(Path(recipe))
    if name not in recipes:
        import difflib

        near = difflib.get_close_matches(name, recipes, n=1)
        raise InvalidParameter(
            f"No recipe is called {name!r}",
            field="RECIPE",
            expected=" or ".join(recipes),
            got=name,
            mend=f"Perhaps {near[0]!r} was meant" if near else "",
        )
    chosen = recipes[name]
    return chosen, with_overrides(merge(chosen.settings(), changes), words)


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise InvalidParameter("Not a setting", expected="KEY=VALUE, such as steps=500", got=word)
    return key, value


def _table() -> Table:
    from ovperception.training.recipes import known_recipes

    table = Table("recipe", "what it does")
    for name, entry in known_recipes().items():
        table.add_row(name, entry.summary)
    return table
