"""RegionCLIP with synthetic weights by their official names, beside what the official code made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heads.regionclip import PRESETS, RegionCLIP, RegionCLIPConfig
from ovperception.backbones import ClipBackbone, Features, build_open_clip, from_open_clip
from ovperception.proposals import Proposals
from ovperception.text import TextClassifier
from ovperception.vocabulary import Vocabulary, VocabularyClass
from tests import synth

DATA = Path(__file__).parents[2] / "data" / "regionclip"

Golden = Mapping[str, NDArray[Any]]

SPREAD = 0.05
"""What the golden deltas were scaled by, so that boxes stay near their proposals."""


def golden(name: str) -> Golden:
    with np.load(DATA / f"{name}.npz") as arrays:
        return dict(arrays)


def text_of(rows: NDArray[np.float32]) -> TextClassifier:
    words = Vocabulary(classes=tuple(VocabularyClass(name=f"class {i}") for i in range(len(rows))))
    return TextClassifier(embeddings=torch.from_numpy(rows), vocabulary=words, text_digest="")


def synthetic_backbone(arch: str) -> ClipBackbone:
    """Its image tower by the official name ``backbone.``; its text tower is left empty."""
    config = open_clip.get_model_config(f"{arch}-quickgelu")
    assert config is not None
    with torch.device("meta"):
        model, tokenizer = build_open_clip(config)
    state = {
        name: synth.tensor(f"backbone.{name.removeprefix('visual.')}", value.shape)
        if value.is_floating_point() and name.startswith("visual.")
        else torch.zeros(value.shape, dtype=value.dtype)
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return from_open_clip(model, f"open_clip:{arch}", tokenizer=tokenizer)


def synthetic_text_tower(arch: str) -> ClipBackbone:
    """The same with its text tower alone, by the name ``lang_encoder.``; the image tower is a toy."""
    config = open_clip.get_model_config(f"{arch}-quickgelu")
    assert config is not None
    config["vision_cfg"] |= {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    model, tokenizer = build_open_clip(config)
    with torch.no_grad():
        for name, value in model.state_dict(keep_vars=True).items():
            if not name.startswith("visual."):
                value.copy_(synth.tensor(f"lang_encoder.{name}", value.shape))
    return from_open_clip(model, f"open_clip:{arch}", tokenizer=tokenizer)


class GivenProposals(nn.Module):
    """Proposes what it was told, the same for every image."""

    def __init__(self, boxes: Tensor, objectness: Tensor) -> None:
        super().__init__()
        self.found = Proposals(boxes=boxes, objectness=objectness)

    def propose(self, features: Features) -> list[Proposals]:
        return [self.found] * len(next(iter(features.maps.values())))


@dataclass(frozen=True)
class Official:
    """The golden picture, its boxes and words, and the backbone with the golden's weights."""

    golden: Golden
    backbone: ClipBackbone

    @property
    def text(self) -> TextClassifier:
        return text_of(self.golden["text_emb"])

    @property
    def boxes(self) -> Tensor:
        return torch.from_numpy(self.golden["boxes"])

    def head(self, preset: str = "coco_zero_shot", **changes: Any) -> RegionCLIP:
        """A published head, its proposals those of the golden."""
        settings = PRESETS[preset].head_settings() | {"masks": False}  # the golden was made without
        config = RegionCLIPConfig.from_dict(
            {"embed_dim": self.backbone.spec.embed_dim, **settings, **changes}
        )
        objectness = torch.from_numpy(self.golden["objectness"])
        head = RegionCLIP(config, GivenProposals(self.boxes, objectness)).eval()
        if head.bbox_pred is not None:
            with torch.no_grad():
                for name, parameter in head.bbox_pred.named_parameters():
                    official = f"roi_heads.box_predictor.bbox_pred.{name}"
                    scale = SPREAD if name == "weight" else 1.0
                    parameter.copy_(scale * synth.tensor(official, parameter.shape))
        return head

    @torch.inference_mode()
    def features(self, image: str = "image") -> Features:
        return self.backbone.features(network_input(self.golden[image]))


def network_input(rgb: NDArray[np.uint8]) -> Tensor:
    """(1, 3, H, W), by the official order: to 0-1, then CLIP's statistics."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    scaled = (torch.from_numpy(rgb).float() / 255 - mean) / deviation
    return scaled.permute(2, 0, 1)[None].contiguous()


@pytest.fixture(scope="session")
def rn50() -> Official:
    return Official(golden("golden_rn50"), synthetic_backbone("RN50"))
