"""The ``ovp`` command line: finds its sub-commands, and turns every failure into one line.

A sub-command is an entry point in the group ``ovperception.commands``. Its value is a function, which
becomes one command, or a `typer.Typer`, which becomes a group of them; either is imported only when it is
asked for, so that ``ovp --help`` loads no torch and one broken command does not break the others. A function
raises `OVPError` for what the user can mend, and returns nothing.

A failure is one line on stderr; with ``--json`` it is an object ``{"error": {"reason", "message"}}`` there:

    0    success
    1    it failed, and asking differently would not have helped; 130 if interrupted
    2    the user can mend it: an unknown option, a missing file, words that are no vocabulary
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ovperception.dependencies import missing
from ovperception.errors import MissingDependency, OVPError

__all__ = ["main"]

GROUP = "ovperception.commands"

# Known before the command's module is imported; a third party's command is announced by its package instead.
_HELP = {
    "bench": "Measure a server under load.",
    "convert": "Turn an official checkpoint into a bundle.",
    "data": "Make or inspect data sets.",
    "demo": "Serve, ask and draw once, with nothing to download.",
    "eval": "Measure a model, or a file of results, by a published protocol.",
    "features": "Keep what a frozen backbone sees, to train heads faster.",
    "models": "List, describe and fetch published models.",
    "predict": "Detect or segment what you name in images.",
    "serve": "Serve models over gRPC.",
    "train": "Train a head on a frozen backbone.",
}


class _LazyGroup(TyperGroup):
    """Lists every sub-command from its entry point and imports only the one that is invoked."""

    def __init__(self, **attributes: Any) -> None:  # what Typer passes on is Typer's business
        super().__init__(**attributes)
        self._entry_points = _find_commands()
        for name in sorted(self._entry_points):
            self.add_command(TyperCommand(name, help=_short_help(self._entry_points[name])))

    # `Any`: Typer's own context and command types are private.
    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name in self._entry_points:
            command = _load(self._entry_points[name])
        return name, command, rest


def _find_commands() -> dict[str, EntryPoint]:
    """Every installed sub-command by name; ours win over a third party's of the same name."""
    found = sorted(entry_points(group=GROUP), key=_is_ours)
    return {point.name: point for point in found}


def _is_ours(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == "ovperception"


def _short_help(point: EntryPoint) -> str:
    if _is_ours(point):
        return _HELP.get(point.name, "")
    return f"(from {point.dist.name})" if point.dist else ""


def _load(point: EntryPoint) -> Any:
    """Import a sub-command.

    Raises:
        MissingDependency: If a library it needs is not installed, or the installation is broken.
    """
    try:
        value = point.load()
    except ModuleNotFoundError as error:
        reason = missing(error, f"ovp {point.name}")
        if isinstance(reason, OVPError):
            raise reason from error
        raise _broken(point, error) from error
    except (ImportError, AttributeError) as error:
        raise _broken(point, error) from error
    if isinstance(value, typer.Typer):
        return typer.main.get_group(value)
    single = typer.Typer(add_completion=False)
    single.command(point.name)(value)
    return typer.main.get_command(single)


def _broken(point: EntryPoint, error: Exception) -> MissingDependency:
    package = point.dist.name if point.dist else "the package that brings it"
    return MissingDependency(
        f"ovp {point.name} cannot be loaded from {point.value}: {error}",
        mend=f"Install {package} again; if that does not help, it is a bug there",
    )


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        import ovperception

        typer.echo(f"ovperception {ovperception.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Open-vocabulary perception: give it images and words, get back boxes, masks and maps."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ovp``.

    Args:
        argv: The arguments; None means those of the process.

    Returns:
        The exit status. Nothing but `SystemExit` is ever raised.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        # In standalone mode Typer prints usage errors itself; for --json they must come back here.
        result = typer.main.get_command(app).main(arguments, prog_name="ovp", standalone_mode=not as_json)
        status = result if isinstance(result, int) else 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt:
        status = 130
    except Exception as error:  # the one place where everything ends
        status = _report(error, as_json)
    return _flush(status)


def _report(error: Exception, as_json: bool) -> int:
    """Print one line about `error` on stderr and return the exit status."""
    if isinstance(error, ModuleNotFoundError):
        error = missing(error, "This command")
    if isinstance(error, typer.TyperException):
        status, parts = error.exit_code, {"reason": "USAGE", "message": error.format_message()}
    elif isinstance(error, typer.Abort):
        status, parts = 1, {"reason": "ABORTED", "message": "Aborted."}
    elif isinstance(error, OVPError):
        status, parts = error.exit_code, {"reason": error.reason, "message": error.message}
        parts |= {"field": error.field} if error.field else {}
    else:
        status, parts = 1, {"reason": "UNEXPECTED", "message": _unexpected(error)}
    if os.environ.get("OVP_DEBUG"):
        import traceback

        traceback.print_exception(error)
    _print_error(parts, as_json)
    return status


def _unexpected(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    text = text if len(text) <= 500 else f"{text[:499]}…"
    return f"{text} (run with OVP_DEBUG=1 for the trace)"


def _print_error(parts: dict[str, str], as_json: bool) -> None:
    try:
        if as_json:
            print(json.dumps({"error": parts}, ensure_ascii=False), file=sys.stderr)
        else:
            from rich.console import Console
            from rich.text import Text

            place = parts.get("field", "")  # of a record in a file; an option is named by the message
            place = f"{place}: " if "[" in place else ""
            line = Text.assemble(("error: ", "bold red"), (place + " ".join(parts["message"].split()), "red"))
            Console(stderr=True, soft_wrap=True).print(line)
    except OSError:  # stderr is closed: the exit status still tells
        pass


def _flush(status: int) -> int:
    """Flush stdout, so that a closed pipe does not become a message of the interpreter at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status or 1
    return status
