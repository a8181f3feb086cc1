"""`ovp train`: run a recipe, stop it, take it up again."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ovperception.errors import InvalidParameter

__all__ = ["train"]


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="name of a recipe")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="settings to change, such as steps=500 device=cuda"),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="print the settings and stop")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves it to torch")] = 0,
) -> None:
    """Train a model from a recipe.

    A run lives in a folder (out=FOLDER) and can be stopped with Ctrl-C at any time: the same command takes it
    up again. Recipes: tiny-clip (the small CLIP), tiny-clip-scenes (its second stage), tiny-fcclip (an
    FC-CLIP head on it; writes a bundle).

    Examples: `ovp train tiny-clip`, then `ovp train tiny-fcclip minutes=40`, then `ovp predict IMAGE
    --model runs/tiny-fcclip/tiny.safetensors --classes "taxi,cat"`.
    """
    from ovperception.training.recipes import RECIPES, with_overrides

    if recipe not in RECIPES:
        raise InvalidParameter(
            f"No recipe is called {recipe!r}", field="RECIPE", expected=" or ".join(RECIPES), got=recipe
        )
    chosen = RECIPES[recipe]
    settings = with_overrides(chosen.settings(), dict(_pair(word) for word in overrides or ()))
    console = Console(stderr=True)
    if show:
        console.print(_table(recipe, settings))
        return
    import torch

    if threads:
        torch.set_num_threads(threads)
    path = chosen.run(settings)
    console.print(f"[green]wrote[/] {path}", highlight=False)


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise InvalidParameter("Not a setting", expected="KEY=VALUE, such as steps=500", got=word)
    return key, value


def _table(recipe: str, settings: Any) -> Table:
    table = Table("setting", "value", title=f"recipe {recipe}")
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            for inner in dataclasses.fields(value):
                table.add_row(f"{field.name}.{inner.name}", _short(getattr(value, inner.name)))
        elif isinstance(value, dict):
            for key, entry in value.items():
                table.add_row(f"{field.name}.{key}", _short(entry))
        else:
            table.add_row(field.name, _short(value))
    return table


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 90 else f"{text[:89]}…"
