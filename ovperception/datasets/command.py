"""``ovp data``: makes and inspects data sets."""

from __future__ import annotations

import typer

from ovperception.datasets.scenes.command import data_scenes

app = typer.Typer(help="Make or inspect data sets.", no_args_is_help=True, add_completion=False)
app.command("scenes")(data_scenes)


@app.callback()
def _data() -> None:
    """Make or inspect data sets."""
