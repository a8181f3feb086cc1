"""Small LSeg heads: one with a trunk of its own beside a text tower, others on small random CLIPs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heads.lseg import LSeg, LSegConfig, TrunkConfig
from ovperception.backbones import ClipBackbone, build_open_clip, from_open_clip
from ovperception.bundle import BackboneCard, HeadCard, ModelCard, write_bundle
from ovperception.preprocess import Preprocessing
from tests.heads.lseg.official import synthetic_head
from tests.ovperception.backbones.conftest import small_config

TRUNK = TrunkConfig(width=32, depth=5, heads=4, patch_size=16, grid=(4, 4), taps=(0, 1, 3, 4))
OWN = LSegConfig(embed_dim=24, trunk=TRUNK, reassemble_channels=(8, 12, 16, 20), features=16)
"""The official network, cut down."""

ON_CLIP: dict[str, Any] = {"features": 16, "reassemble_channels": [8, 12, 16, 20]}


def text_tower() -> tuple[ClipBackbone, dict[str, Any]]:
    config = small_config("vit") | {"image_tower": False}
    torch.manual_seed(3)
    model, tokenizer = build_open_clip(config)
    return from_open_clip(model, "open_clip:small", tokenizer=tokenizer, config=config), config


def small_clip(family: str) -> tuple[ClipBackbone, dict[str, Any]]:
    config = small_config(family)
    torch.manual_seed(3)
    model, tokenizer = build_open_clip(config)
    return from_open_clip(model, "open_clip:small", tokenizer=tokenizer, config=config), config


def head_on(backbone: ClipBackbone, **settings: Any) -> LSeg:
    torch.manual_seed(4)
    return LSeg.from_settings({**ON_CLIP, **settings}, backbone.spec).eval()


def write_small_bundle(path: Path, family: str = "", **settings: Any) -> Path:
    """With a trunk of its own, or on a small CLIP of a family."""
    backbone, config = small_clip(family) if family else text_tower()
    if family:
        head = head_on(backbone, **settings)
    else:
        head = synthetic_head(LSegConfig.from_dict(OWN.to_dict() | settings))
    tensors = {f"backbone.{k}": v for k, v in backbone.model.state_dict().items()}
    tensors |= {f"head.lseg.{k}": v for k, v in head.state_dict().items()}
    half = (127.5, 127.5, 127.5)
    multiple = 1 if head.config.views else 32
    preprocessing = Preprocessing(mean=half, std=half, longest_edge=128, multiple=multiple)
    card = ModelCard(
        name="small-lseg",
        backbone=BackboneCard(name="open_clip:small", config=config),
        heads=(HeadCard(name="lseg", config=head.config.to_dict()),),
        preprocessing=dict(preprocessing.to_dict()),
        templates="none",
    )
    return write_bundle(path, card, tensors)


def image(seed: int = 0, size: tuple[int, int] = (90, 133)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
