"""LSeg with synthetic weights by their official names, and the golden pictures and words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heads.lseg import LSeg, LSegConfig
from heads.lseg.convert import official_name
from ovperception.text import TextClassifier
from ovperception.vocabulary import Vocabulary, VocabularyClass
from tests import synth

DATA = Path(__file__).parents[2] / "data" / "lseg"

Golden = Mapping[str, NDArray[Any]]


def golden(name: str) -> Golden:
    with np.load(DATA / f"{name}.npz") as arrays:
        return dict(arrays)


def manifest() -> dict[str, tuple[list[int], str]]:
    found: dict[str, tuple[list[int], str]] = json.loads((DATA / "manifest_vitl16.json").read_text())
    return found


def picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """The golden picture of a seed: noise with some structure, RGB."""
    noise = np.random.RandomState(seed).randint(0, 256, size=(height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (15, 15), 5).astype(np.float32)
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).round().astype(np.uint8)


def network_input(rgb: NDArray[np.uint8]) -> Tensor:
    """(1, 3, H, W) in -1 to 1."""
    return (torch.from_numpy(rgb).float() / 255 - 0.5).div(0.5).permute(2, 0, 1)[None].contiguous()


def synthetic_state(config: LSegConfig) -> dict[str, Tensor]:
    """By official names, for any size of the official kind."""
    with torch.device("meta"):
        head = LSeg(config)
    return {
        official_name(name): synth.tensor(official_name(name), value.shape)
        if value.is_floating_point()
        else torch.zeros(value.shape, dtype=value.dtype)
        for name, value in head.state_dict().items()
    }


def synthetic_head(config: LSegConfig, state: Mapping[str, Tensor] | None = None) -> LSeg:
    """Through the converter's names."""
    given = synthetic_state(config) if state is None else state
    with torch.device("meta"):
        head = LSeg(config)
    head.load_state_dict({name: given[official_name(name)] for name in head.state_dict()}, assign=True)
    return head.eval().requires_grad_(False)


def text_of(rows: NDArray[np.float32] | Tensor) -> TextClassifier:
    words = Vocabulary(classes=tuple(VocabularyClass(name=f"class {i}") for i in range(len(rows))))
    return TextClassifier(embeddings=torch.as_tensor(rows), vocabulary=words, text_digest="")
