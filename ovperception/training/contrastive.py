"""The contrastive recipe that made the tiny CLIP: captions of crops, every category, then frozen.

Image-to-text and text-to-image cross entropy over one batch (Radford et al., 2021), with one change for a
small world in which many captions of a batch are true of one tile ("a taxi" and "a photo of a purple taxi"):
captions that are true but not the tile's own are left out of the denominator rather than pushed away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovperception.training.batches import Normaliser
from ovperception.training.checkpoint import save_weights
from ovperception.training.loop import Losses, TrainingRun
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.mosaics import MosaicBatch, MosaicSampler
from ovperception.training.parameters import OptimizerSettings, make_optimizer
from ovperception.training.run_folder import describe_data, sitting
from ovperception.training.schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TINY_CLIP", "ContrastiveRecipe", "contrastive_loss", "train_contrastive"]

#: A ModifiedResNet on which region, mask and pixel heads can all stand; at most 8 M parameters.
TINY_CLIP: dict[str, Any] = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 64, "layers": [1, 2, 2, 1], "width": 32, "patch_size": None},
    "text_cfg": {"context_length": 24, "vocab_size": 6514, "width": 128, "heads": 4, "layers": 3},
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
    "tokenizer": {"kind": "clip_bpe", "merges": 6000},
    "pyramid": [2, 4],  # how its regions are read; the weights know nothing of it
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveRecipe:
    """Everything that makes a contrastive run what it is."""

    name: str = "tiny-clip"
    out: Path = Path("runs/tiny-clip")
    config: Mapping[str, Any] = field(default_factory=lambda: TINY_CLIP)
    sampler: MosaicSampler = field(default_factory=MosaicSampler)
    schedule: Schedule = field(default_factory=lambda: Schedule(steps=4000, learning_rate=2e-3, warmup=150))
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(betas=(0.9, 0.98)))
    loop: LoopSettings = field(default_factory=LoopSettings)
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool = True
    workers: int = 1


@dataclass(frozen=True, slots=True)
class _Mosaics:
    """The sampler's batches by number."""

    sampler: MosaicSampler

    def __getitem__(self, number: int) -> MosaicBatch:
        return self.sampler.batch(number)


def truths(batch: MosaicBatch) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which texts are true of which tiles.

    Returns:
        own: (n,) index of each tile's own caption among the texts (captions first, then negatives).
        true: (n, T) bool.
    """
    cells = batch.cells
    category = np.array([c.category for c in cells])
    colour = np.array([c.colour for c in cells])
    stuff = np.array([c.stuff for c in cells])
    none = np.full(len(batch.negatives), -1)
    text_category = np.concatenate([category, np.asarray(batch.negative_categories, dtype=category.dtype)])
    text_colour = np.concatenate([np.where([c.said_colour for c in cells], colour, -1), none])
    text_stuff = np.concatenate([np.where([c.said_stuff for c in cells], stuff, -1), none])
    true = text_category[None] == category[:, None]
    true &= (text_colour[None] < 0) | (text_colour[None] == colour[:, None])
    true &= (text_stuff[None] < 0) | (text_stuff[None] == stuff[:, None])
    return np.arange(len(cells)), true


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Symmetric cross entropy that leaves out other true pairs.

    Args:
        images: (n, D) tile embeddings.
        texts: (T, D), T >= n; text i is tile i's own caption.
        scale: exponentiated temperature.
        true: (n, T) bool, whether a text is true of a tile.
    """
    import torch
    import torch.nn.functional as F

    n = len(images)
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    own = torch.arange(n, device=logits.device)
    others = true.clone()
    others[own, own] = False
    logits = logits.masked_fill(others, float("-inf"))
    return {
        "image_to_text": 0.5 * F.cross_entropy(logits, own),
        "text_to_image": 0.5 * F.cross_entropy(logits[:, :n].T, own),
    }


def train_contrastive(recipe: ContrastiveRecipe) -> Path:
    """Run the recipe, resuming what its folder holds; returns the path of the safetensors weights."""
    import torch

    from ovperception.backbones import build_open_clip

    path = recipe.out / "clip.safetensors"
    with sitting(recipe) as world:
        model, tokenizer = build_open_clip(dict(recipe.config))
        model = model.to(world.device).to(memory_format=torch.channels_last).train()
        if world.writes:
            describe_data(recipe, {})
        run = TrainingRun(
            folder=recipe.out,
            module=model,
            optimizer=make_optimizer(model, recipe.optimizer, recipe.schedule.learning_rate),
            schedule=recipe.schedule,
            settings=recipe.loop,
            world=world,
        )
        run.resume()
        losses = _losses(recipe, model, tokenizer, world.device)
        run.run(_Mosaics(recipe.sampler), losses, workers=recipe.workers)
        run.settle()
        if world.writes:
            save_weights(model, path)
    return path


def _losses(recipe: ContrastiveRecipe, model: Any, tokenizer: Any, device: str) -> Losses:
    import torch

    normalise = Normaliser(recipe.config["preprocess_cfg"], device)

    def losses(batch: MosaicBatch) -> Mapping[str, Tensor]:
        normal = normalise(batch.canvases)
        masks = None if batch.masks is None else torch.from_numpy(batch.masks).to(device)
        tokens = tokenizer([c.caption for c in batch.cells] + list(batch.negatives)).to(device)
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=recipe.bfloat16):
            images = embed_tiles(model, normal, masks)
        texts = embed_captions(model, tokens)  # bfloat16 gains nothing at this width
        _, true = truths(batch)
        scale = model.logit_scale.exp().clamp(max=100.0)
        return contrastive_loss(images.float(), texts.float(), scale, torch.from_numpy(true).to(device))

    return losses


def embed_tiles(model: Any, canvases: Tensor, masks: Tensor | None) -> Tensor:
    """(n, D): whole images the ordinary way, or the masked tiles of mosaics."""
    from ovperception.backbones.resnet import masked_attention_pool, resnet_maps

    if masks is None:
        embeddings: Tensor = model.encode_image(canvases)
        return embeddings
    dense = resnet_maps(model.visual, canvases)["res5"]
    return masked_attention_pool(model.visual.attnpool, dense, masks).flatten(0, 1)


def embed_captions(model: Any, tokens: Tensor) -> Tensor:
    """(T, D) with gradients, tokens cut to the longest caption."""
    from ovperception.backbones.text_tower import encode_tokens

    longest = int(tokens.argmax(dim=-1).max()) + 1
    return encode_tokens(model, tokens[:, :longest])
