"""What every picture is asked, and who answers: a model that runs here, or a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from ovperception.commands.given_boxes import Boxes, GivenBoxes
from ovperception.commands.server_access import ServerAccess
from ovperception.commands.word_heats import WordHeats
from ovperception.errors import InvalidParameter
from ovperception.structures import Detections, PanopticMap, SemanticMap
from ovperception.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ovperception.client import Client
    from ovperception.sliding import Views

__all__ = ["Answer", "Answered", "Ask", "Question", "Task", "local_answers", "server_answers"]

Task = Literal["detect", "semantic", "panoptic", "heatmap"]
Answer = Detections | SemanticMap | PanopticMap | WordHeats

_MOST_HEATMAPS = 64
"""Words that still make a sheet to look at."""


class _Scene(Protocol):
    """What `ovperception.Scene` and `ovperception.client.RemoteScene` share."""

    def detect(
        self, words: Vocabulary, *, boxes: Boxes | None = None, score_threshold: float | None = None
    ) -> Detections: ...

    def semantic(self, words: Vocabulary, *, score_threshold: float | None = None) -> SemanticMap: ...

    def panoptic(self, words: Vocabulary, *, score_threshold: float | None = None) -> PanopticMap: ...

    def heatmap(self, text: str) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Answered:
    """One image's answer, and the name of the model that gave it."""

    model: str
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What every picture is asked.

    Attributes:
        task: What for.
        words: The classes.
        boxes: Those to name, where the model need find none.
        threshold: Least score, 0-1; None means the model's own.
        embeddings: A file of the classes' embeddings, in place of the text tower's.

    Raises:
        InvalidParameter: The parts do not go together, or the threshold is none.
    """

    task: Task
    words: Vocabulary
    boxes: GivenBoxes | None = None
    threshold: float | None = None
    embeddings: Path | None = None

    def __post_init__(self) -> None:
        if self.boxes is not None and self.task != "detect":
            raise InvalidParameter(
                "Boxes are given to be named", field="task", expected="detect", got=self.task
            )
        # Said by the model as well, but only when it is loaded and has seen the first picture.
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InvalidParameter(
                "score_threshold is out of range",
                field="score_threshold",
                expected="a number from 0 to 1",
                got=self.threshold,
            )
        if self.task == "heatmap":
            self._refuse_beside_heatmaps()

    def _refuse_beside_heatmaps(self) -> None:
        """A heat map is a similarity with one text, which nothing competes with."""
        for field, given in (
            ("score_threshold", self.threshold is not None),
            ("templates", self.words.templates is not None),
            ("background", self.words.background is not None),
        ):
            if given:
                raise InvalidParameter(
                    "A heat map has no use for this", field=field, expected="the words alone"
                )
        if len(self.words) > _MOST_HEATMAPS:
            raise InvalidParameter(
                "Too many words for heat maps",
                field="classes",
                expected=f"up to {_MOST_HEATMAPS}",
                got=len(self.words),
            )

    def boxes_of(self, path: Path) -> Boxes | None:
        """The boxes to name in a picture; None where the model finds them."""
        return None if self.boxes is None else self.boxes.of(path)

    def ask(self, scene: _Scene, path: Path) -> Answer:
        """Ask it about the scene of a picture."""
        match self.task:
            case "detect":
                boxes = self.boxes_of(path)
                return scene.detect(self.words, boxes=boxes, score_threshold=self.threshold)
            case "semantic":
                return scene.semantic(self.words, score_threshold=self.threshold)
            case "panoptic":
                return scene.panoptic(self.words, score_threshold=self.threshold)
            case "heatmap":
                return WordHeats.ask(scene.heatmap, self.words)


Ask = Callable[[Path], Answered]


@contextmanager
def server_answers(server: ServerAccess, model: str | None, question: Question) -> Iterator[Ask]:
    """How a server answers about a picture; `model` is one that it serves."""
    with server.connect(model) as client:
        yield lambda path: _ask_server(client, path, question)


def local_answers(model: str, device: str, question: Question, views: Views | None = None) -> Ask:
    """How a model that is loaded here answers about a picture; `views` are of the head that does."""
    import ovperception
    from ovperception.view_options import set_views

    local = ovperception.load(model, device=device)
    if views is not None:
        set_views(local, "semantic" if question.task == "heatmap" else question.task, views)
    if question.task != "heatmap":  # any model paints; what it cannot answer is told before it looks
        local.head_for(question.task, given_boxes=question.boxes is not None)
    if question.embeddings is None:
        return lambda path: Answered(local.name, question.ask(local.encode(path), path))
    from ovperception.class_embeddings import classifier_from_file

    rows = local.classifier(classifier_from_file(question.embeddings, question.words))
    return lambda path: Answered(
        local.name,
        local.encode(path).detect(rows, boxes=question.boxes_of(path), score_threshold=question.threshold),
    )


def _ask_server(client: Client, path: Path, question: Question) -> Answered:
    answer = question.ask(client.scene(path), path)
    reply = client.last_reply
    return Answered(reply.model.name if reply else "", answer)
