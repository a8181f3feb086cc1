"""Asking a model in process, or a server, what a protocol asks: the same question, the same answer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from eval.outcome import Answer
from eval.protocols import AP, FewShot
from eval.running.job import Job
from eval.running.question import Question
from eval.running.windows import resized_to, semantic_by_windows
from ovperception.errors import InvalidImage, Unsupported
from ovperception.structures import Detections, SemanticMap
from ovperception.view_options import set_views

if TYPE_CHECKING:
    from ovperception.client import Client
    from ovperception.datasets.samples import Sample
    from ovperception.model import Model
    from ovperception.vocabulary import Vocabulary

__all__ = [
    "MOST_DETECTIONS",
    "Asker",
    "Identity",
    "LocalAsker",
    "Looked",
    "RemoteAsker",
    "ask",
    "load_model",
    "picture_of",
]

T = TypeVar("T")
MOST_DETECTIONS = 10_000
"""Of an image where a protocol sets no limit, as for fixed AP: so many a file can hold."""

_TIMEOUT_S = 600.0
_MESSAGE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who answers."""

    name: str
    version: str
    digest: str
    tasks: frozenset[str]
    backbone: str
    backbone_digest: str = ""
    device: str = ""
    templates: str = ""
    resolution: str = ""
    augmentation: str = "none"


class Asker(Protocol):
    """A model here or elsewhere."""

    @property
    def identity(self) -> Identity:
        """Who it is."""
        ...

    def learn(self, words: Vocabulary) -> None:
        """Encodes the words, which is no image's time."""
        ...

    def look(self, image: NDArray[np.uint8]) -> Looked:
        """Looks at (H, W, 3) uint8 RGB once."""
        ...

    def close(self) -> None:
        """Ends connections."""
        ...


class Looked:
    """An image that was looked at; equal questions are asked once.

    Args:
        scene: `ovperception.Scene` or the client's.
        image: the picture.
        model: of a scene in process.
        timing: milliseconds by stage so far; grows with every question.
        remote_timing: gives those of the last answer of a server.
    """

    def __init__(
        self,
        scene: Any,
        image: NDArray[np.uint8],
        *,
        model: Model | None,
        timing: dict[str, float],
        remote_timing: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        self.scene = scene
        self.image = image
        self.model = model
        self.timing = timing
        self._remote_timing = remote_timing
        self._known: dict[object, Answer] = {}

    def answer(self, key: object, stage: str, question: Callable[[], Answer]) -> Answer:
        """Asks, unless it was asked before, and notes how long it took."""
        if key not in self._known:
            begun = time.perf_counter()
            self._known[key] = question()
            self.timing[stage] = 1e3 * (time.perf_counter() - begun)
            if self._remote_timing is not None:
                self.timing |= {f"server_{name}": ms for name, ms in self._remote_timing().items()}
        return self._known[key]


def load_model(name: str, device: str) -> Model:
    """A model by name or path."""
    import ovperception as ovp

    return ovp.load(name, device=device)


def _augmentation(heads: Mapping[str, object]) -> str:
    """What heads do to look at a picture more than once."""
    views = [getattr(getattr(head, "config", None), "views", None) for head in heads.values()]
    return "; ".join(str(one) for one in views if one is not None) or "none"


class LocalAsker:
    """A model in this process.

    Args:
        model: loaded.
        job: whose resolution the pictures get, and whose views, if it has some.

    Raises:
        Unsupported: no head answers the job's task, or the one that does looks once.
    """

    def __init__(self, model: Model, job: Job) -> None:
        self.model = model
        self._resolution = ""
        if job.views is not None:
            set_views(model, job.protocol.task, job.views)
        chosen = job.protocol.resolution
        if job.resolution == "protocol" and chosen is not None and not chosen.square:
            # Of windows the picture is resized before it is cut, and nothing afterwards.
            edges = (None, None) if job.window else (chosen.shortest_edge, chosen.longest_edge)
            model.preprocessing = dataclasses.replace(
                model.preprocessing, shortest_edge=edges[0], longest_edge=edges[1]
            )
        elif preprocessing := getattr(model, "preprocessing", None):
            self._resolution = (
                f"the model's own, shortest edge {preprocessing.shortest_edge}, "
                f"longest {preprocessing.longest_edge}"
            )

    @property
    def identity(self) -> Identity:
        """Who it is."""
        model, templates = self.model, self.model.card.templates
        return Identity(
            name=model.name,
            version=model.version,
            digest=model.digest,
            tasks=frozenset(model.tasks),
            backbone=model.spec.name,
            backbone_digest=model.spec.digest,
            device=str(model.device),
            templates=templates if isinstance(templates, str) else "; ".join(templates),
            resolution=self._resolution,
            augmentation=_augmentation(getattr(model, "heads", {})),
        )

    def learn(self, words: Vocabulary) -> None:
        """Encodes the words and what competes with them."""
        self.model.classifier(words)
        if extended := getattr(self.model, "with_competitors", None):
            self.model.classifier(extended(words))

    def look(self, image: NDArray[np.uint8]) -> Looked:
        """Looks at (H, W, 3) uint8 RGB once."""
        scene = self.model.encode(image)
        return Looked(scene, image, model=self.model, timing=dict(getattr(scene, "timing", {})))

    def close(self) -> None:
        """Nothing to end."""


class RemoteAsker:
    """A model behind a server; pictures are sent without loss, and never smaller than they are.

    Args:
        address: of the server.
        name: of the model there; "" for the server's first.

    Raises:
        UnknownModel: the server has no such model.
        Unavailable: there is no server.
    """

    def __init__(self, address: str, name: str) -> None:
        from ovperception.client import Client
        from ovperception.errors import UnknownModel

        self.client: Client = Client(
            address, model=name, timeout_s=_TIMEOUT_S, transport="auto", max_message_bytes=_MESSAGE_BYTES
        )
        info = self.client.server_info()
        cards = {card.name: card for card in info.models}
        if name and name not in cards:
            raise UnknownModel(
                "The server has no such model", field="model", expected=" or ".join(cards), got=name
            )
        self._card = cards[name] if name else info.models[0]
        self._max_pixels = info.max_pixels

    @property
    def identity(self) -> Identity:
        """Who it is."""
        card = self._card
        return Identity(
            name=card.name,
            version=card.version,
            digest=card.digest,
            tasks=card.tasks,
            backbone=card.backbone,
            device=f"behind {self.client.address}",
            resolution="the model's own",
            augmentation="the model's own, which a server does not tell",
        )

    def learn(self, words: Vocabulary) -> None:
        """Nothing: the server learns them with the first question."""

    def look(self, image: NDArray[np.uint8]) -> Looked:
        """Sends (H, W, 3) uint8 RGB once; raises InvalidImage if the server takes none so large."""
        if self._max_pixels and image.shape[0] * image.shape[1] > self._max_pixels:
            raise InvalidImage(
                "This picture is larger than the server takes; a smaller one would give other numbers",
                expected=f"up to {self._max_pixels} pixels",
                got=image.shape[:2],
                mend="Start the server with a higher max_pixels",
            )
        begun = time.perf_counter()
        scene = self.client.encode(image)
        timing = {"encode": 1e3 * (time.perf_counter() - begun)}
        return Looked(
            scene, image, model=None, timing=timing, remote_timing=lambda: dict(self.client.last_timing)
        )

    def close(self) -> None:
        """Ends the connection."""
        self.client.close()


def ask(looked: Looked, job: Job, question: Question, sample: Sample, *, masks: bool) -> Answer:
    """The answer to a protocol's question about one picture, nothing cut that the protocol would count.

    Args:
        looked: the picture.
        job: what is evaluated.
        question: the words.
        sample: which picture it is; of a fold it says which class is asked.
        masks: whether masks are wanted of detections.
    """
    protocol, words = job.protocol, question.vocabulary
    if isinstance(protocol.metric, FewShot):
        words = question.episode(sample)
    key = (words.content_hash, protocol.task)
    if isinstance(protocol.metric, AP):
        limit = protocol.metric.max_detections or MOST_DETECTIONS
        return looked.answer(
            (*key, limit),
            "detect",
            lambda: _detections(looked, words, protocol.score_floor, limit, masks),
        )
    if protocol.task == "panoptic":
        return looked.answer(key, "panoptic", lambda: cast("Answer", looked.scene.panoptic(words)))
    least = protocol.background.threshold or 0.0
    found = looked.answer((*key, least), "semantic", lambda: _map(looked, job, words, least))
    return _with_background(cast("SemanticMap", found), words.names) if least else found


def _detections(looked: Looked, words: Any, floor: float, limit: int, masks: bool) -> Detections:
    found: Detections = looked.scene.detect(words, score_threshold=floor, max_detections=limit, masks=masks)
    return found


def _map(looked: Looked, job: Job, words: Any, least: float) -> SemanticMap:
    window = job.protocol.window
    if window is None or not job.window:
        found: SemanticMap = looked.scene.semantic(words, score_threshold=least)
        return found
    if looked.model is None:
        raise Unsupported("A server does not look window by window", field="resolution")
    return semantic_by_windows(
        looked.model,
        looked.image,
        words,
        resolution=job.protocol.resolution,
        window=window,
        score_threshold=least,
    )


def _with_background(found: SemanticMap, names: tuple[str, ...]) -> SemanticMap:
    """Pixels that no class is probable enough for are of the background."""
    background = names.index("background") if "background" in names else 0
    return dataclasses.replace(found, labels=np.where(found.labels < 0, background, found.labels))


def picture_of(sample: Sample, job: Job) -> NDArray[np.uint8]:
    """The picture as it is presented to the model: squashed, where the protocol says so."""
    image, chosen = sample.image(), job.protocol.resolution
    return resized_to(image, chosen) if chosen is not None and chosen.square else image
