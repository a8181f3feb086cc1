"""``ovp demo``: a server, a client, a picture, and questions about it; nothing to download."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import ovperception
from ovperception.client import Client, RemoteScene
from ovperception.drawing import draw_heatmap, grid
from ovperception.errors import InvalidParameter, OVPError
from ovperception.images import load_image, save_image, write_file
from ovperception.structures import Detections, SemanticMap
from serving.config import ServerConfig
from serving.server import Server

__all__ = ["demo"]

# The picture is scene 18 of the test split. It shows these, and no toolbox was among what any head was
# trained on.
_SHOWN = ("rooster", "toolbox", "snowman", "hand fan", "clapperboard", "sled")
_NOT_SHOWN = ("violin", "turtle", "bus")
_STUFF = ("grass", "water", "sky")
_TEXT = "toolbox"

Row = dict[str, Any]  # one entry of the JSON that is written
Picture = NDArray[np.uint8]


def demo(
    model: Annotated[str, typer.Option(help="Name or bundle of the model to show.")] = "tiny",
    out: Annotated[Path, typer.Option(help="Folder for demo.png and result.json.")] = Path("demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Serve a small model, ask it over gRPC, and draw the answers."""
    console = Console(highlight=False, quiet=as_json, soft_wrap=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidParameter("The folder cannot be made", field="out", got=f"{out}: {error}") from error
    data = files("ovperception").joinpath("data/demo/scene.png").read_bytes()
    with _served(model) as client:
        show = _Show(client, console, load_image(data))
        with client.encode(data) as scene:
            show.ask_all(scene)
    show.write(out)
    if as_json:
        print(json.dumps(show.result, ensure_ascii=False))
    console.print(f"wrote {escape(str(out / 'demo.png'))} and {escape(str(out / 'result.json'))}")
    show.check()


@contextmanager
def _served(model: str) -> Iterator[Client]:
    """A client of a server that serves `model` on a free port."""
    config = ServerConfig(port=0)
    with Server([ovperception.load(model)], config) as server, Client(server.address) as client:
        yield client


class _Show:
    """Asks, prints, draws and remembers."""

    def __init__(self, client: Client, console: Console, picture: Picture) -> None:
        self.result: Row = {"server": client.address, "questions": []}
        self._client = client
        self._console = console
        self._picture = picture
        self._drawn: list[tuple[str, Picture]] = [("the picture", picture)]
        self._found: Detections | None = None

    def ask_all(self, scene: RemoteScene) -> None:
        """Every question the model can answer, about one image that was sent once."""
        reply = self._client.last_reply
        if reply is None:
            raise AssertionError("the image was just encoded")
        self.result |= {"model": reply.model.name, "weights": reply.model.digest, "size": list(scene.size)}
        self.result["encode"] = dict(reply.timing)
        height, width = scene.size
        self._console.print(
            f"[bold]{escape(reply.model.name)}[/bold] on {self._client.address} has looked at a picture of "
            f"{height} x {width} pixels, once and without words: {reply.timing['round_trip']:.0f} ms"
        )
        words = [*_SHOWN, *_NOT_SHOWN]
        if "detect" in reply.model.tasks:
            found = scene.detect(words)
            self._found = found
            self._note("detect", words, found.to_json(), found.draw(self._picture))
            self._print(found)
        everything = [*_SHOWN, *_STUFF]
        if "panoptic" in reply.model.tasks:
            segments = scene.panoptic(everything)
            parts = {"segments": segments.to_json("")["segments"]}
            self._note("panoptic", everything, parts, segments.draw(self._picture))
        if "semantic" in reply.model.tasks:
            labels = scene.semantic(everything)
            self._note("semantic", everything, _shares(labels), labels.draw(self._picture))
        heat = scene.heatmap(_TEXT)
        self._note("heatmap", [_TEXT], {"highest": float(heat.max())}, draw_heatmap(self._picture, heat))
        again = self._ask_again(scene)
        self._print_costs(again)

    def _ask_again(self, scene: RemoteScene) -> float:
        """Other words for the same scene; what a second question costs, in milliseconds."""
        words = [*_NOT_SHOWN, *_SHOWN[:2]]
        if "detect" in self._tasks:
            found = scene.detect(words)
            self._note("detect", words, found.to_json(), None)
        return float(self.result["questions"][-1]["timing"]["round_trip"])

    @property
    def _tasks(self) -> frozenset[str]:
        reply = self._client.last_reply
        return reply.model.tasks if reply else frozenset()

    def _note(self, task: str, words: list[str], answer: Mapping[str, Any], drawn: Picture | None) -> None:
        timing = dict(self._client.last_timing)
        self.result["questions"].append({"task": task, "words": words, **answer, "timing": timing})
        if drawn is not None:
            title = f'heat of "{words[0]}"' if task == "heatmap" else task
            self._drawn.append((title, drawn))

    def _print(self, found: Detections) -> None:
        table = Table("class", "score", "box (x0 y0 x1 y1)")
        for name, score, box in zip(found.names, found.scores, found.boxes, strict=True):
            table.add_row(name, f"{score:.2f}", " ".join(f"{side:.0f}" for side in box))
        self._console.print(table)

    def _print_costs(self, again: float) -> None:
        table = Table("call", "server ms", "with the network")
        encode = self.result["encode"]
        table.add_row("look at the picture", f"{encode['total']:.1f}", f"{encode['round_trip']:.1f}")
        for row in self.result["questions"]:
            name = f"{row['task']}, {len(row['words'])} words"
            table.add_row(name, f"{row['timing']['total']:.1f}", f"{row['timing']['round_trip']:.1f}")
        self._console.print(table)
        ratio = (encode["round_trip"] + again) / again
        self.result["encode_once"] = {"first_ms": encode["round_trip"] + again, "again_ms": again}
        self.result["encode_once"]["ratio"] = ratio
        self._console.print(
            f"a first question: {encode['round_trip'] + again:.0f} ms; another, with other words: "
            f"{again:.0f} ms, {ratio:.1f} times less"
        )

    def write(self, out: Path) -> None:
        """Write demo.png and result.json."""
        titles, pictures = zip(*self._drawn, strict=True)
        save_image(out / "demo.png", grid(pictures, titles, columns=min(3, len(pictures))))
        text = json.dumps(self.result, indent=1, ensure_ascii=False)
        write_file(out / "result.json", f"{text}\n".encode())

    def check(self) -> None:
        """Fail if the answers make no sense.

        Raises:
            OVPError: Nothing that the picture shows was found.
        """
        if self._found is not None and not set(self._found.names) & set(_SHOWN):
            raise OVPError(
                "The model found nothing of what the picture shows",
                expected=" or ".join(_SHOWN),
                got=", ".join(self._found.names) or "nothing",
            )


def _shares(labels: SemanticMap) -> Row:
    """Share of the pixels by class."""
    return {"shares": {labels.classes[k]: float(np.mean(labels.labels == k)) for k in labels.present}}
