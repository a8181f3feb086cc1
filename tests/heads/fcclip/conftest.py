"""FC-CLIP with synthetic weights, through the real converter, beside what the official code made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from heads.fcclip import FCCLIP
from heads.fcclip.convert import ConvertedCheckpoint, convert_state
from ovperception.backbones import ClipBackbone, Features, build_open_clip, from_open_clip
from ovperception.text import TextClassifier
from ovperception.vocabulary import Vocabulary, VocabularyClass
from tests import synth

DATA = Path(__file__).parents[2] / "data" / "fcclip"

Golden = Mapping[str, NDArray[Any]]

CLASSES = (
    VocabularyClass(name="person"),
    VocabularyClass(name="traffic light", synonyms=("traffic light", "light")),
    VocabularyClass(name="dog"),
    VocabularyClass(name="sky", is_thing=False),
    VocabularyClass(name="grass", synonyms=("grass", "lawn"), is_thing=False),
    VocabularyClass(name="wall", is_thing=False),
)
SEEN = ("person", "light", "dog")


def vocabulary() -> Vocabulary:
    return Vocabulary(classes=CLASSES)


def text_of(rows: NDArray[np.float32]) -> TextClassifier:
    return TextClassifier(embeddings=torch.from_numpy(rows), vocabulary=vocabulary(), text_digest="")


def golden(name: str) -> Golden:
    with np.load(DATA / f"{name}.npz") as arrays:
        return dict(arrays)


def manifest(variant: str) -> dict[str, tuple[list[int], str]]:
    return {k: (shape, dtype) for k, (shape, dtype) in json.loads(_manifest(variant).read_text()).items()}


def _manifest(variant: str) -> Path:
    return DATA / f"manifest_{variant}.json"


def official_state(variant: str) -> dict[str, Tensor]:
    """The official checkpoint; the text tower is left at zero, because the words come embedded."""
    entries = manifest(variant)
    idle = {k: torch.zeros(shape) for k, (shape, _) in entries.items() if _of_text_tower(k)}
    return idle | synth.state_dict({k: v for k, v in entries.items() if k not in idle})


def _of_text_tower(name: str) -> bool:
    tower = name.removeprefix("backbone.clip_model.")
    return tower.startswith(("transformer.", "token_embedding.", "positional_embedding"))


class Official:
    """One variant: head and backbone with its weights, and its features for the golden picture."""

    def __init__(self, variant: str) -> None:
        self.golden = golden(f"golden_{variant}_s1")
        self.checkpoint: ConvertedCheckpoint = convert_state(official_state(variant), seen_words=SEEN)
        self.head = FCCLIP(self.checkpoint.config).eval()
        self.head.load_state_dict(self.checkpoint.head_state)
        self.backbone = _backbone(self.checkpoint)
        self.text = text_of(self.golden["text_classifier"])

    @torch.inference_mode()
    def features(self) -> Features:
        return self.backbone.features(network_input())


def _backbone(checkpoint: ConvertedCheckpoint) -> ClipBackbone:
    config = open_clip.get_model_config(checkpoint.backbone_arch)
    assert config is not None
    with torch.device("meta"):
        model, tokenizer = build_open_clip(config)
    # The causal mask is a constant that no checkpoint holds.
    state = checkpoint.backbone_state
    model.load_state_dict(state, assign=True, strict=False)
    name = f"open_clip:{checkpoint.backbone_arch}"
    return from_open_clip(model, name, tokenizer=tokenizer)


def network_input() -> Tensor:
    with np.load(DATA / "input_s1.npz") as arrays:
        rgb = torch.from_numpy(arrays["rgb"]).float()
    mean = torch.tensor([122.7709383, 116.7460125, 104.09373615])
    deviation = torch.tensor([68.5005327, 66.6321579, 70.32316305])
    return ((rgb - mean) / deviation).permute(2, 0, 1)[None].contiguous()


@pytest.fixture(scope="session")
def r50() -> Official:
    return Official("r50")


@pytest.fixture(scope="session")
def convnext() -> Official:
    return Official("convnext_large")


@pytest.fixture(scope="session")
def post() -> Golden:
    return golden("golden_r50_post")
