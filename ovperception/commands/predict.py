"""``ovp predict``: ask images for what you name, here or on a server."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from ovperception.commands.given_boxes import Boxes, GivenBoxes
from ovperception.commands.server_access import ServerAccess
from ovperception.errors import (
    InvalidImage,
    InvalidInput,
    InvalidParameter,
    InvalidRegions,
    MissingFile,
    OVPError,
    UnknownVocabulary,
)
from ovperception.images import save_image
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovperception.client import Client

__all__ = ["predict"]

Task = Literal["detect", "semantic", "panoptic"]
Answer = Detections | SemanticMap | PanopticMap
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class _Scene(Protocol):
    """What `ovperception.Scene` and `ovperception.client.RemoteScene` share."""

    def detect(
        self, words: Vocabulary, *, boxes: Boxes | None = None, score_threshold: float | None = None
    ) -> Detections: ...

    def semantic(self, words: Vocabulary, *, score_threshold: float | None = None) -> SemanticMap: ...

    def panoptic(self, words: Vocabulary, *, score_threshold: float | None = None) -> PanopticMap: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """One image's answer, and the name of the model that gave it."""

    model: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class _Question:
    """What every picture is asked."""

    task: Task
    words: Vocabulary
    boxes: GivenBoxes | None
    threshold: float | None

    def boxes_of(self, path: Path) -> Boxes | None:
        return None if self.boxes is None else self.boxes.of(path)

    def ask(self, scene: _Scene, path: Path) -> Answer:
        match self.task:
            case "detect":
                boxes = self.boxes_of(path)
                return scene.detect(self.words, boxes=boxes, score_threshold=self.threshold)
            case "semantic":
                return scene.semantic(self.words, score_threshold=self.threshold)
            case "panoptic":
                return scene.panoptic(self.words, score_threshold=self.threshold)


Ask = Callable[[Path], _Asked]


def predict(
    images: Annotated[list[str], typer.Argument(help="Pictures, folders of pictures, or patterns.")],
    model: Annotated[
        str | None, typer.Option(help="Name or bundle; with --server, a name it serves.")
    ] = None,
    task: Annotated[Task, typer.Option(help="What to ask for.")] = "detect",
    classes: Annotated[str | None, typer.Option(help='The words: "taxi,traffic light|stoplight".')] = None,
    classes_file: Annotated[Path | None, typer.Option(help="A file of them, one class a line.")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="A built-in list, such as lvis_v1_1203.")] = None,
    templates: Annotated[str | None, typer.Option(help="Sentences around the words: a set, or one.")] = None,
    class_embeddings: Annotated[
        Path | None,
        typer.Option(help="Stored embeddings of the classes, K x D, in place of the text tower's."),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(help='What else may be there and competes: words, a built-in list, or "none".'),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="JSON of boxes to name: [[x0, y0, x1, y1], ...], or {picture: boxes}."),
    ] = None,
    score_threshold: Annotated[float | None, typer.Option(help="Least score, 0 to 1.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
    server: Annotated[str | None, typer.Option(help="Ask the server at HOST:PORT.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the server.")] = 60.0,
    token_file: Annotated[
        Path | None, typer.Option(help="With --server: a file with the bearer token alone.")
    ] = None,
    tls: Annotated[bool, typer.Option(help="With --server: TLS, trusting whom this machine trusts.")] = False,
    tls_ca: Annotated[
        Path | None, typer.Option(help="With --server: TLS, trusting these authorities (PEM).")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="With --server: the certificate to show (PEM); needs --tls-key.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="With --server: its key (PEM).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for drawn pictures and maps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line and image.")] = False,
) -> None:
    """Detect or segment what you name in images.

    A picture that cannot be read is reported and skipped; the exit status is 2 then.
    """
    words = _vocabulary(classes, classes_file, vocabulary, templates)
    if boxes is not None and task != "detect":
        raise InvalidParameter("Boxes are given to be named", field="task", expected="detect", got=task)
    given = None if boxes is None else GivenBoxes(boxes)
    if class_embeddings is not None:
        _refuse_beside_embeddings(task, server, background)
    if background is not None:
        words = Vocabulary.from_words(words, background=_background(background))
    report = _Report(task, out, as_json)
    question = _Question(task, words, given, score_threshold)
    there = None
    if server is not None:
        shown = (tls_ca, tls_cert, tls_key)
        there = ServerAccess(address=server, timeout_s=timeout, token_file=token_file, tls=tls, shown=shown)
    elif tls or any(given is not None for given in (token_file, tls_ca, tls_cert, tls_key)):
        raise InvalidParameter(
            "Tokens and certificates are for a server", field="server", expected="--server HOST:PORT"
        )
    with _asker(model, there, device, question, class_embeddings) as ask:
        for path in _progress(_find_all(images, report)):
            try:
                report.add(path, ask(path))
            except OVPError as error:
                # Words and thresholds are wrong for every picture alike, and a server that is gone is gone.
                of_picture = isinstance(error, InvalidImage | InvalidRegions | MissingFile)
                if not of_picture and type(error) is not InvalidInput:
                    raise
                report.fail(path, error)
    if report.failed:
        raise typer.Exit(2)


def _vocabulary(
    classes: str | None, file: Path | None, name: str | None, templates: str | None
) -> Vocabulary:
    if (classes is not None) + (file is not None) + (name is not None) != 1:
        raise InvalidParameter(
            "The words must be given once",
            field="classes",
            expected="one of --classes, --classes-file and --vocabulary",
            mend='For example: --classes "taxi,traffic light|stoplight"',
        )
    if classes is not None:
        return Vocabulary.from_words(classes.split(","), templates=templates)
    if file is not None:
        return Vocabulary.from_file(file, templates=templates)
    return Vocabulary.builtin(name or "", templates=templates)


def _refuse_beside_embeddings(task: Task, server: str | None, background: str | None) -> None:
    """Embeddings take the place of words, for detection by a model that runs here."""
    for field, given, wanted in (
        ("task", task != "detect", "detect"),
        ("server", server is not None, "a model that runs here"),
        ("background", background is not None, "no background: it would need embeddings as well"),
    ):
        if given:
            raise InvalidParameter("Class embeddings cannot be used like this", field=field, expected=wanted)


def _background(text: str) -> tuple[str, ...]:
    if text in ("", "none"):
        return ()
    try:
        return tuple("|".join(c.synonyms) for c in Vocabulary.builtin(text).classes)
    except UnknownVocabulary:
        return tuple(text.split(","))


def _find_all(patterns: Sequence[str], report: _Report) -> list[Path]:
    paths = []
    for pattern in patterns:
        try:
            paths += _find(pattern)
        except MissingFile as error:
            report.fail(Path(pattern), error)
    return paths


def _find(pattern: str) -> list[Path]:
    """The pictures that a name, a folder or a pattern stands for; a name may turn out to be none."""
    path = Path(pattern)
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES)
    elif not path.exists() and glob.has_magic(pattern):
        found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file()]
    else:
        return [path]
    if not found:
        raise MissingFile(
            "There is no picture here", field="images", expected="JPEG, PNG or WebP", got=pattern
        )
    return found


def _progress(paths: Sequence[Path]) -> Iterator[Path]:
    """The paths, with a bar on stderr where somebody watches it."""
    console = Console(stderr=True)
    hidden = len(paths) < 2 or not console.is_terminal or sys.stdout.isatty()
    yield from track(paths, description="asking", console=console, disable=hidden, transient=True)


@contextmanager
def _asker(
    model: str | None,
    server: ServerAccess | None,
    device: str,
    question: _Question,
    embeddings: Path | None,
) -> Iterator[Ask]:
    """How a path becomes an answer: on a server, or by a model loaded here."""
    if server is not None:
        with server.connect(model) as client:
            yield lambda path: _ask_server(client, path, question)
    else:
        import ovperception

        local = ovperception.load(model or "tiny", device=device)
        if embeddings is not None:
            from ovperception.class_embeddings import classifier_from_file

            rows = local.classifier(classifier_from_file(embeddings, question.words))
            yield lambda path: _Asked(
                local.name,
                local.encode(path).detect(
                    rows, boxes=question.boxes_of(path), score_threshold=question.threshold
                ),
            )
            return
        yield lambda path: _Asked(local.name, question.ask(local.encode(path), path))


def _ask_server(client: Client, path: Path, question: _Question) -> _Asked:
    answer = question.ask(client.scene(path), path)
    reply = client.last_reply
    return _Asked(reply.model.name if reply else "", answer)


class _Report:
    """Prints answers and writes pictures, one image after the other."""

    def __init__(self, task: Task, out: Path | None, as_json: bool) -> None:
        self.failed = 0
        self._task = task
        self._out = out
        self._as_json = as_json
        self._taken: set[str] = set()
        if out is not None:
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InvalidParameter(
                    "The output folder cannot be made", field="out", got=f"{out}: {error.strerror}"
                ) from error

    def add(self, path: Path, asked: _Asked) -> None:
        """Report an answer."""
        answer = asked.answer
        map_path = self._write(path, answer)
        if not self._as_json:
            Console().print(_table(path, asked))
            return
        row: dict[str, Any] = {
            "image": str(path),
            "size": list(answer.size),
            "model": asked.model,
            "task": self._task,
        }
        if isinstance(answer, Detections):
            row |= answer.to_json()
        elif isinstance(answer, SemanticMap):
            row |= answer.to_json("") | {"label_map": map_path}
        else:
            row |= answer.to_json("") | {"id_map": map_path}
        print(json.dumps(row, ensure_ascii=False, separators=(",", ":")), flush=True)

    def fail(self, path: Path, error: OVPError) -> None:
        """Report a picture that gave no answer."""
        self.failed += 1
        if self._as_json:
            parts = {"image": str(path), "reason": error.reason, "message": error.message}
            print(json.dumps({"error": parts}, ensure_ascii=False), file=sys.stderr)
        else:
            text = error.message if str(path) in error.message else f"{path}: {error.message}"
            Console(stderr=True, soft_wrap=True).print(f"error: {text}", style="red", markup=False)

    def _write(self, path: Path, answer: Answer) -> str | None:
        """Write the drawn picture and the map, if there is one; where the map went."""
        if self._out is None:
            return None
        name = self._name(path)
        save_image(self._out / f"{name}.{self._task}.png", answer.draw(path))
        if isinstance(answer, Detections):
            return None
        target = self._out / f"{name}.{'labels' if isinstance(answer, SemanticMap) else 'ids'}.png"
        answer.save_png(target)
        return str(target)

    def _name(self, path: Path) -> str:
        """A name for the files of one picture that no other picture of this run has."""
        name, count = path.stem, 1
        while name in self._taken:
            count += 1
            name = f"{path.stem}-{count}"
        self._taken.add(name)
        return name


def _table(path: Path, asked: _Asked) -> Table:
    answer = asked.answer
    height, width = answer.size
    title = escape(f"{path}  {height} x {width}  ({asked.model})")
    if isinstance(answer, Detections):
        table = Table("class", "score", "box (x0 y0 x1 y1)", title=title, title_justify="left")
        for name, score, box in zip(answer.names, answer.scores, answer.boxes, strict=True):
            table.add_row(escape(name), f"{score:.3f}", " ".join(f"{side:.0f}" for side in box))
    elif isinstance(answer, SemanticMap):
        table = Table("class", "share", title=title, title_justify="left")
        shares = {k: float(np.mean(answer.labels == k)) for k in answer.present}
        for k, share in sorted(shares.items(), key=lambda row: -row[1]):
            table.add_row(escape(answer.classes[k]), f"{share:.1%}")
    else:
        table = Table("id", "class", "score", "share", title=title, title_justify="left")
        for segment in sorted(answer.segments, key=lambda row: -row.area):
            share = segment.area / (height * width)
            name = escape(answer.classes[segment.class_id])
            table.add_row(str(segment.id), name, f"{segment.score:.3f}", f"{share:.1%}")
    return table
