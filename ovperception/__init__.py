"""Open-vocabulary perception: give it an image and words, get back boxes, masks and maps.

    import ovperception as ovp

    model = ovp.load("tiny")
    scene = model.encode("street.jpg")
    detections = scene.detect(["taxi", "traffic light|stoplight"], score_threshold=0.3)

Names are loaded on first use, so that importing the package costs nothing and needs no torch: the client
runs on a robot that has none.

Notation, used in every docstring and shape comment:

    B      images of a batch                Q    queries or proposals of a head
    C      channels                         K    classes asked for
    H W    pixels                           T    texts (prompts)
    h w    feature cells                    D    size of the shared image-text embedding
    S      side of a square image           N    results

Sizes are ``(height, width)``. Boxes are ``xyxy``, float, half-open, in pixels of the presented image unless
a docstring names another frame ("pixels of the network input", "0-1"). At the public border images are uint8
RGB ``(H, W, 3)``. "Scores" are 0-1, "logits" are not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovperception.client import Client
    from ovperception.errors import (
        DeadlineExceeded,
        InvalidCheckpoint,
        InvalidDataset,
        InvalidImage,
        InvalidInput,
        InvalidParameter,
        InvalidRegions,
        InvalidVocabulary,
        MissingDependency,
        MissingFile,
        NotFound,
        OVPError,
        ResourceExhausted,
        Unavailable,
        UnknownHead,
        UnknownImage,
        UnknownModel,
        UnknownVocabulary,
        Unsupported,
    )
    from ovperception.model import Model, Scene, load
    from ovperception.structures import Detections, PanopticMap, Segment, SemanticMap
    from ovperception.vocabulary import Vocabulary

    __version__: str

__all__ = [
    "Client",
    "DeadlineExceeded",
    "Detections",
    "InvalidCheckpoint",
    "InvalidDataset",
    "InvalidImage",
    "InvalidInput",
    "InvalidParameter",
    "InvalidRegions",
    "InvalidVocabulary",
    "MissingDependency",
    "MissingFile",
    "Model",
    "NotFound",
    "OVPError",
    "PanopticMap",
    "ResourceExhausted",
    "Scene",
    "Segment",
    "SemanticMap",
    "Unavailable",
    "UnknownHead",
    "UnknownImage",
    "UnknownModel",
    "UnknownVocabulary",
    "Unsupported",
    "Vocabulary",
    "__version__",
    "load",
]

_MODULES = {
    "Client": "client",
    "Detections": "structures",
    "Model": "model",
    "PanopticMap": "structures",
    "Scene": "model",
    "Segment": "structures",
    "SemanticMap": "structures",
    "Vocabulary": "vocabulary",
    "load": "model",
}  # every other public name is an error


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name == "__version__":
        value: object = _version()
    elif name in __all__:
        value = _find(name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ovperception")
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "0+unknown"


def _find(name: str) -> object:
    """A public name from its module; a library that is not installed becomes the extra that brings it."""
    try:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    except ModuleNotFoundError as error:
        from ovperception.dependencies import missing

        raise missing(error, f"ovperception.{name}") from error
