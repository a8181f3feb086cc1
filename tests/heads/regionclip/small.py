"""A small random CLIP with a RegionCLIP head on it, whose proposals move with the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heads.regionclip import RegionCLIP
from ovperception.backbones import ClipBackbone, build_open_clip, from_open_clip
from ovperception.bundle import BackboneCard, HeadCard, ModelCard, write_bundle
from ovperception.preprocess import Preprocessing

CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 64,
        "layers": [1, 1, 1, 1],
        "width": 16,
        "head_width": 32,
        "patch_size": None,
    },
    "text_cfg": {"context_length": 24, "vocab_size": 1514, "width": 32, "heads": 2, "layers": 2},
    "tokenizer": {"kind": "clip_bpe", "merges": 1000},
}
MASKED = {"box_deltas": True, "masks": True, "region_channels": 512, "mask_channels": 16}


def small_backbone() -> ClipBackbone:
    torch.manual_seed(3)
    model, tokenizer = build_open_clip(CONFIG)
    with torch.no_grad():
        for name, parameter in model.visual.named_parameters():
            if name.endswith("bn3.weight"):
                parameter.uniform_(0.5, 1)  # open_clip starts them at zero
    return from_open_clip(model, "open_clip:small", tokenizer=tokenizer, config=CONFIG)


def write_small_bundle(path: Path, settings: dict[str, Any] | None = None) -> Path:
    """A bundle whose head finds no boxes by itself, unless `settings` name a proposer."""
    backbone = small_backbone()
    torch.manual_seed(4)
    head = RegionCLIP.from_settings({**MASKED, **(settings or {})}, backbone.spec)
    if head.mask_head is not None:
        with torch.no_grad():
            head.mask_head.predictor.weight.normal_()
    tensors = {f"backbone.{k}": v for k, v in backbone.model.state_dict().items()}
    tensors |= {f"head.regionclip.{k}": v for k, v in head.state_dict().items()}
    mean, std = ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    preprocessing = Preprocessing(
        mean=(255 * mean[0], 255 * mean[1], 255 * mean[2]),
        std=(255 * std[0], 255 * std[1], 255 * std[2]),
        shortest_edge=96,
        longest_edge=160,
        multiple=1,
    )
    card = ModelCard(
        name="small-regionclip",
        backbone=BackboneCard(name="open_clip:small", config=CONFIG),
        heads=(HeadCard(name="regionclip", config=head.config.to_dict()),),
        preprocessing=dict(preprocessing.to_dict()),
        templates="none",
        defaults={"score_threshold": 0.0, "nms_iou_threshold": 0.5, "max_detections": 50},
    )
    return write_bundle(path, card, tensors)


def picture(seed: int = 0, size: tuple[int, int] = (90, 133)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
