"""Second stage of the tiny CLIP: its attention pool alone learns to pool regions of every size.

The mosaics of the first stage hold few large tiles, so objects that cover many cells are pooled badly. Here
trunk and text tower are frozen, which makes a step several times cheaper, tiles of all sizes get an equal
share of the steps, and canvases are shifted so that a tile's borders no longer lie on the feature grid. As
before, only crops and their captions are seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovperception.datasets import scenes
from ovperception.datasets.scenes.vocabulary import scenes_vocabulary
from ovperception.training.loop import Schedule, TrainingRun
from ovperception.training.mosaics import MosaicBatch, MosaicSampler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["PoolingRecipe", "ShiftedMosaics", "train_pooling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingRecipe:
    """Everything that makes a run of the second stage what it is."""

    out: Path = Path("runs/tiny-clip-pool")
    clip: Path = Path("runs/tiny-clip/clip.safetensors")
    config: Mapping[str, Any]
    templates: tuple[str, ...]
    schedule: Schedule = field(default_factory=lambda: Schedule(steps=2000, learning_rate=5e-4, warmup=50))
    weight_decay: float = 0.05
    cells: int = 256
    seed: int = 1
    device: str = "cpu"
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftedMosaics:
    """A map-style dataset: item i is the batch of step `first` + i.

    Attributes:
        seed: of the stream.
        cells: pixels of a batch, counted in tiles of 64.
        first: step of item 0.
        count: steps to go.
        sizes: tile sides and the canvas they lie on; every one is as likely.
    """

    seed: int
    cells: int
    first: int
    count: int
    sizes: tuple[tuple[int, int], ...] = (
        (64, 192),
        (64, 384),
        (96, 288),
        (96, 384),
        (128, 384),
        (160, 480),
        (192, 384),
        (256, 512),
    )

    def __len__(self) -> int:
        """Steps to go."""
        return self.count

    def __getitem__(self, index: int) -> MosaicBatch:
        """A batch of one tile size; half of the batches are native single tiles in every fifth step."""
        step = self.first + index
        rng = np.random.Generator(np.random.PCG64([self.seed, step, 3]))
        if step % 5 == 0:
            return MosaicSampler(cells=self.cells, native_share=1.0, negatives=1, seed=self.seed).batch(step)
        tile, canvas = self.sizes[int(rng.integers(len(self.sizes)))]
        sampler = MosaicSampler(
            cells=self.cells,
            native_share=0.0,
            negatives=1,
            canvas=canvas,
            tile_sizes=((tile, 1.0),),
            seed=self.seed,
        )
        return _shifted(sampler.batch(step), rng)


def _shifted(batch: MosaicBatch, rng: np.random.Generator) -> MosaicBatch:
    """Canvases rolled by less than a cell, and masks whose rim is sometimes lost to it."""
    if batch.masks is None:
        return batch
    dy, dx = (int(v) for v in rng.integers(-16, 17, size=2))
    return replace(batch, canvases=np.roll(batch.canvases, (dy, dx), axis=(1, 2)))


def train_pooling(recipe: PoolingRecipe) -> Path:
    """Run the recipe, resuming what its folder holds; returns the path of the whole CLIP's weights."""
    import torch
    from safetensors.torch import save_file

    from ovperception.training.heads import load_trained_clip

    torch.manual_seed(recipe.seed)
    torch.set_flush_denormal(True)
    recipe.out.mkdir(parents=True, exist_ok=True)
    backbone = load_trained_clip(recipe.clip, recipe.config, "tiny").to(recipe.device)
    visual: Any = backbone.model.visual
    pool = visual.attnpool
    for parameter in pool.parameters():
        parameter.requires_grad = True
    optimizer = torch.optim.AdamW(pool.parameters(), lr=1e-4, weight_decay=recipe.weight_decay)
    run = TrainingRun(folder=recipe.out, module=pool, optimizer=optimizer, schedule=recipe.schedule)
    run.resume()
    run.run(_losses(recipe, run, backbone), clip_norm=1.0)
    path = recipe.out / "clip.safetensors"
    save_file({k: v.detach().contiguous() for k, v in backbone.model.state_dict().items()}, path)
    return path


def _losses(recipe: PoolingRecipe, run: TrainingRun, backbone: Any) -> Iterator[dict[str, Tensor]]:
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader

    from ovperception.backbones.resnet import attention_pool, masked_attention_pool, resnet_maps
    from ovperception.text import TextEncoder

    text = TextEncoder(backbone, templates=recipe.templates).classifier(scenes_vocabulary())
    index = {c.id: i for i, c in enumerate(scenes.load_categories())}
    steps = ShiftedMosaics(
        seed=recipe.seed, cells=recipe.cells, first=run.step, count=recipe.schedule.steps - run.step
    )
    loader: DataLoader[MosaicBatch] = DataLoader(
        steps,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
    )
    preprocess = recipe.config["preprocess_cfg"]
    mean, std = (
        255 * torch.tensor(preprocess[key]).view(1, 3, 1, 1).to(recipe.device) for key in ("mean", "std")
    )
    visual = backbone.model.visual
    scale = backbone.spec.logit_scale
    for batch in loader:
        images = (_pixels(batch.canvases).to(recipe.device) - mean) / std
        with torch.no_grad():
            dense = resnet_maps(visual, images.contiguous(memory_format=torch.channels_last))["res5"]
        if batch.masks is None:
            embedded = attention_pool(visual.attnpool, dense)
        else:
            masks = torch.from_numpy(batch.masks).to(recipe.device)
            embedded = masked_attention_pool(visual.attnpool, dense, masks).flatten(0, 1)
        logits = text.reduce(scale * F.normalize(embedded.float(), dim=-1) @ text.embeddings.T)
        wanted = torch.tensor([index[c.category] for c in batch.cells], device=recipe.device)
        yield {"name": F.cross_entropy(logits, wanted)}


def _pixels(canvases: NDArray[np.uint8]) -> Tensor:
    import torch

    return torch.from_numpy(canvases).permute(0, 3, 1, 2)
