"""``ovp predict``: ask images for what you name, here or on a server."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from ovperception.commands.answer_report import AnswerReport
from ovperception.commands.given_boxes import GivenBoxes
from ovperception.commands.picture_paths import find_pictures
from ovperception.commands.question import Ask, Question, Task, local_answers, server_answers
from ovperception.commands.question_words import words_of
from ovperception.commands.server_access import ServerAccess
from ovperception.errors import (
    InvalidImage,
    InvalidInput,
    InvalidParameter,
    InvalidRegions,
    MissingFile,
    OVPError,
    Unsupported,
)
from ovperception.view_options import VIEWS_HELP, views_of

__all__ = ["predict"]

_Images = Annotated[
    list[str], typer.Argument(metavar="IMAGE", help="Pictures, folders of pictures, or patterns.")
]
_Model = Annotated[str | None, typer.Option(help="Name or bundle; with --server, a name it serves.")]
_Task = Annotated[Task, typer.Option(help="What to ask for.")]
_Classes = Annotated[
    str | None, typer.Option(rich_help_panel="Words", help='The words: "taxi,traffic light|stoplight".')
]
_ClassesFile = Annotated[
    Path | None, typer.Option(rich_help_panel="Words", help="A file of them, one class a line.")
]
_Vocabulary = Annotated[
    str | None, typer.Option(rich_help_panel="Words", help="A built-in list, such as lvis_v1_1203.")
]
_Templates = Annotated[
    str | None, typer.Option(rich_help_panel="Words", help="Sentences around the words: a set, or one.")
]
_ClassEmbeddings = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel="Words", help="Stored embeddings of the classes, K x D, in place of the text tower's."
    ),
]
_Background = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Words",
        help='What else may be there and competes: words, a built-in list, or "none".',
    ),
]
_Boxes = Annotated[
    Path | None, typer.Option(help=r"JSON of boxes to name: \[\[x0, y0, x1, y1], ...], or {picture: boxes}.")
]
_Threshold = Annotated[float | None, typer.Option(help="Least score, 0 to 1.")]
_Views = Annotated[str, typer.Option(help=VIEWS_HELP, show_default=False)]
_Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")]
_Server = Annotated[str | None, typer.Option(rich_help_panel="Server", help="Ask the server at HOST:PORT.")]
_Timeout = Annotated[float, typer.Option(rich_help_panel="Server", help="Seconds to wait for the server.")]
_TokenFile = Annotated[
    Path | None,
    typer.Option(rich_help_panel="Server", help="With --server: a file with the bearer token alone."),
]
_Tls = Annotated[
    bool,
    typer.Option(rich_help_panel="Server", help="With --server: TLS, trusting whom this machine trusts."),
]
_TlsCa = Annotated[
    Path | None,
    typer.Option(rich_help_panel="Server", help="With --server: TLS, trusting these authorities (PEM)."),
]
_TlsCert = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel="Server", help="With --server: the certificate to show (PEM); needs --tls-key."
    ),
]
_TlsKey = Annotated[Path | None, typer.Option(rich_help_panel="Server", help="With --server: its key (PEM).")]
_Out = Annotated[Path | None, typer.Option(help="Folder for drawn pictures and maps.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line and image.")]


def predict(
    images: _Images,
    model: _Model = None,
    task: _Task = "detect",
    classes: _Classes = None,
    classes_file: _ClassesFile = None,
    vocabulary: _Vocabulary = None,
    templates: _Templates = None,
    class_embeddings: _ClassEmbeddings = None,
    background: _Background = None,
    boxes: _Boxes = None,
    score_threshold: _Threshold = None,
    views: _Views = "",
    device: _Device = "cpu",
    server: _Server = None,
    timeout: _Timeout = 60.0,
    token_file: _TokenFile = None,
    tls: _Tls = False,
    tls_ca: _TlsCa = None,
    tls_cert: _TlsCert = None,
    tls_key: _TlsKey = None,
    out: _Out = None,
    as_json: _Json = False,
) -> None:
    """Detect, segment or paint what you name in images.

    A picture that cannot be read is reported and skipped; the exit status is 2 then.
    """
    if class_embeddings is not None:
        _refuse_beside_embeddings(task, server, background)
    if views and server is not None:
        raise Unsupported(
            "A server looks as often as its model's bundle says",
            field="views",
            expected="no views with --server",
            mend="Ask a model that runs here, or leave them out",
        )
    question = Question(
        task=task,
        words=words_of(
            classes=classes, file=classes_file, name=vocabulary, templates=templates, background=background
        ),
        boxes=None if boxes is None else GivenBoxes(boxes),
        threshold=score_threshold,
        embeddings=class_embeddings,
    )
    report = AnswerReport(task, out, as_json)
    there = _server(server, timeout, token_file, tls, (tls_ca, tls_cert, tls_key))
    with ExitStack() as stack:
        if there is not None:
            ask = stack.enter_context(server_answers(there, model, question))
        else:
            ask = local_answers(model or "tiny", device, question, views_of(views) if views else None)
        _ask_all(_find_all(images, report), ask, report)
    if report.failed:
        raise typer.Exit(2)


def _refuse_beside_embeddings(task: Task, server: str | None, background: str | None) -> None:
    """Embeddings take the place of words, for detection by a model that runs here."""
    for field, given, wanted in (
        ("task", task != "detect", "detect"),
        ("server", server is not None, "a model that runs here"),
        ("background", background is not None, "no background: it would need embeddings as well"),
    ):
        if given:
            raise InvalidParameter("Class embeddings cannot be used like this", field=field, expected=wanted)


def _server(
    address: str | None,
    timeout_s: float,
    token_file: Path | None,
    tls: bool,
    shown: tuple[Path | None, Path | None, Path | None],
) -> ServerAccess | None:
    """The server to ask, if one is named."""
    if address is not None:
        return ServerAccess(address=address, timeout_s=timeout_s, token_file=token_file, tls=tls, shown=shown)
    if tls or token_file is not None or any(shown):
        raise InvalidParameter(
            "Tokens and certificates are for a server", field="server", expected="--server HOST:PORT"
        )
    return None


def _find_all(patterns: Sequence[str], report: AnswerReport) -> list[Path]:
    paths = []
    for pattern in patterns:
        try:
            paths += find_pictures(pattern)
        except MissingFile as error:
            report.fail(Path(pattern), error)
    return paths


def _ask_all(paths: Sequence[Path], ask: Ask, report: AnswerReport) -> None:
    for path in _progress(paths):
        try:
            report.add(path, ask(path))
        except OVPError as error:
            # Words and thresholds are wrong for every picture alike, and a server that is gone is gone.
            of_picture = isinstance(error, InvalidImage | InvalidRegions | MissingFile)
            if not of_picture and type(error) is not InvalidInput:
                raise
            report.fail(path, error)


def _progress(paths: Sequence[Path]) -> Iterator[Path]:
    """The paths, with a bar on stderr where somebody watches it."""
    console = Console(stderr=True)
    hidden = len(paths) < 2 or not console.is_terminal or sys.stdout.isatty()
    yield from track(paths, description="asking", console=console, disable=hidden, transient=True)
