"""What `ovp predict` prints and writes about each picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ovperception.commands.question import Answer, Answered, Task
from ovperception.commands.word_heats import WordHeats
from ovperception.errors import InvalidParameter, OVPError
from ovperception.images import save_image
from ovperception.structures import Detections, PanopticMap, SemanticMap

__all__ = ["AnswerReport"]


class AnswerReport:
    """Prints answers and writes pictures, one image after the other.

    Args:
        task: What was asked.
        out: Folder for drawn pictures and maps; None writes none.
        as_json: Whether to print JSON, an object a line.

    Attributes:
        failed: How many pictures gave no answer.

    Raises:
        InvalidParameter: The folder cannot be made.
    """

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

    def add(self, path: Path, asked: Answered) -> None:
        """Report an answer."""
        answer = asked.answer
        map_path = self._write(path, answer)
        if not self._as_json:
            Console().print(_table(path, asked))
            return
        row: dict[str, Any] = {"image": str(path), "size": list(answer.size)}
        row |= {"model": asked.model, "task": self._task}
        if isinstance(answer, Detections):
            row |= answer.to_json()
        elif isinstance(answer, SemanticMap):
            row |= answer.to_json("") | {"label_map": map_path}
        elif isinstance(answer, WordHeats):
            row |= answer.to_json()
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
        if isinstance(answer, Detections | WordHeats):
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


def _table(path: Path, asked: Answered) -> Table:
    answer = asked.answer
    height, width = answer.size
    title = escape(f"{path}  {height} x {width}  ({asked.model})")
    columns, rows = _rows(answer)
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def _rows(answer: Answer) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns, and what stands in them."""
    match answer:
        case Detections():
            return ("class", "score", "box (x0 y0 x1 y1)"), [
                (escape(name), f"{score:.3f}", " ".join(f"{side:.0f}" for side in box))
                for name, score, box in zip(answer.names, answer.scores, answer.boxes, strict=True)
            ]
        case SemanticMap():
            shares = {k: float(np.mean(answer.labels == k)) for k in answer.present}
            ordered = sorted(shares.items(), key=lambda row: -row[1])
            return ("class", "share"), [(escape(answer.classes[k]), f"{share:.1%}") for k, share in ordered]
        case PanopticMap():
            pixels = answer.ids.size
            return ("id", "class", "score", "share"), [
                (str(s.id), escape(answer.classes[s.class_id]), f"{s.score:.3f}", f"{s.area / pixels:.1%}")
                for s in sorted(answer.segments, key=lambda segment: -segment.area)
            ]
        case WordHeats():
            return ("class", "lowest", "highest", "at (x y)"), [
                (escape(word.name), f"{word.lowest:.3f}", f"{word.highest:.3f}", f"{word.at[0]} {word.at[1]}")
                for word in answer.words
            ]
