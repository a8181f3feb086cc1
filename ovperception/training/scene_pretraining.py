"""Second stage of the tiny CLIP: its image tower learns to name crops of scenes where they stand.

The mosaics of the first stage are no scenes: no ground runs under their tiles, and most tiles have one size.
Here the text tower is frozen (locked-text tuning; Zhai et al., CVPR 2022, lock the image side instead), so
every word of the world is a candidate at each step, and a crop is named along every path by which a head
will later ask for it: masked attention pooling, region pooling, the dense value path, and, in some steps, as
a picture of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovperception.datasets import scenes
from ovperception.datasets.scenes.vocabulary import scenes_vocabulary
from ovperception.training.loop import Schedule, TrainingRun, parameter_groups
from ovperception.training.scene_crops import CropBatch, SceneCrops

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ovperception.text import TextClassifier

__all__ = ["ScenePretraining", "pretrain_on_scenes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePretraining:
    """Everything that makes a run of the second stage what it is.

    Attributes:
        out: folder of the run.
        clip: weights of the first stage.
        config: open_clip configuration of that CLIP.
        templates: what a name is prompted with.
        schedule: learning rate and length.
        megapixels: pixels of a step.
        native_share: share of the steps that see native crops alone.
        settled: share of the run after which the batch norms no longer follow the batches.
        roi_weight, dense_weight, colour_weight: of the further losses; the first, by mask, weighs 1.
    """

    out: Path = Path("runs/tiny-clip-scenes")
    clip: Path = Path("runs/tiny-clip/clip.safetensors")
    config: Mapping[str, Any]
    templates: tuple[str, ...]
    schedule: Schedule = field(default_factory=lambda: Schedule(steps=6000, learning_rate=2e-3, warmup=100))
    weight_decay: float = 0.05
    megapixels: float = 1.0
    native_share: float = 0.3
    settled: float = 0.85
    roi_weight: float = 0.5
    dense_weight: float = 0.25
    colour_weight: float = 0.2
    seed: int = 1
    device: str = "cpu"
    bfloat16: bool = True
    workers: int = 1


def pretrain_on_scenes(recipe: ScenePretraining) -> Path:
    """Run the recipe, resuming what its folder holds; returns the path of the whole CLIP's weights."""
    import torch
    from safetensors.torch import save_file

    from ovperception.training.heads import load_trained_clip

    torch.manual_seed(recipe.seed)
    torch.set_flush_denormal(True)
    recipe.out.mkdir(parents=True, exist_ok=True)
    backbone = load_trained_clip(recipe.clip, recipe.config, "tiny").to(recipe.device)
    text, tints = _texts(recipe, backbone)
    model: Any = backbone.model
    model.to(memory_format=torch.channels_last)
    for parameter in (*model.visual.parameters(), model.logit_scale):
        parameter.requires_grad = True
    groups = parameter_groups(model, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.schedule.learning_rate, betas=(0.9, 0.98))
    run = TrainingRun(folder=recipe.out, module=model, optimizer=optimizer, schedule=recipe.schedule)
    run.resume()
    run.run(_losses(recipe, run, model, text, tints), clip_norm=1.0)
    path = recipe.out / "clip.safetensors"
    save_file({k: v.detach().contiguous() for k, v in model.state_dict().items()}, path)
    return path


def _texts(recipe: ScenePretraining, backbone: Any) -> tuple[TextClassifier, Tensor]:
    """What can be said: every name, and (things, colours + 1, D) every tinted thing, untinted last."""
    import torch

    from ovperception.text import TextEncoder

    encoder = TextEncoder(backbone, templates=recipe.templates)
    things = [c.name for c in scenes.load_categories() if c.is_thing]
    said = [f"{colour} {name}" for name in things for colour in scenes.COLOURS]
    with torch.no_grad():
        text = encoder.classifier(scenes_vocabulary())
        tinted = encoder.embed(said, templates=recipe.templates[:1]).unflatten(0, (len(things), -1))
        plain = encoder.embed(things, templates=recipe.templates[:1])
    return text, torch.cat((tinted, plain[:, None]), 1).to(recipe.device)


def _losses(
    recipe: ScenePretraining, run: TrainingRun, model: Any, text: TextClassifier, tints: Tensor
) -> Iterator[dict[str, Tensor]]:
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader

    crops = SceneCrops(
        seed=recipe.seed,
        megapixels=recipe.megapixels,
        native_size=model.visual.image_size,
        native_share=recipe.native_share,
        first=run.step,
        count=recipe.schedule.steps - run.step,
    )
    loader: DataLoader[CropBatch] = DataLoader(
        crops,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
    )
    preprocess = recipe.config["preprocess_cfg"]
    mean, std = (
        255 * torch.tensor(preprocess[key]).view(1, 3, 1, 1).to(recipe.device) for key in ("mean", "std")
    )
    kind = recipe.device.split(":")[0]
    for batch in loader:
        model.visual.train(recipe.schedule.progress(run.step, run.elapsed_s) < recipe.settled)
        pixels = torch.from_numpy(batch.canvases).to(recipe.device).permute(0, 3, 1, 2)
        normal = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(kind, torch.bfloat16, enabled=recipe.bfloat16):
            paths = _embed(model.visual, normal, batch)
        classes = torch.from_numpy(batch.classes).to(recipe.device)
        scale = model.logit_scale.exp().clamp(max=100.0)
        named = {}
        weights = {"mask": 1.0, "native": 1.0, "roi": recipe.roi_weight, "dense": recipe.dense_weight}
        for path, raw in paths.items():
            embedded = F.normalize(raw.float(), dim=-1)
            logits = text.reduce(scale * embedded @ text.embeddings.T)
            named[path] = weights[path] * F.cross_entropy(logits, classes)
            if path in ("mask", "native"):
                named["colour"] = recipe.colour_weight * _colour_loss(embedded, scale, batch, classes, tints)
        yield named


def _embed(visual: Any, images: Tensor, batch: CropBatch) -> dict[str, Tensor]:
    """(N, D) along each path that can embed the crops of this batch, not normalised."""
    import torch

    from ovperception.backbones.regions import masked_mean
    from ovperception.backbones.resnet import (
        attention_pool,
        dense_embeddings,
        masked_attention_pool,
        resnet_maps,
        roi_embeddings,
    )

    maps = resnet_maps(visual, images)
    if batch.cells is None:
        return {"native": attention_pool(visual.attnpool, maps["res5"])}
    of = torch.from_numpy(batch.images).to(images.device)
    counts = torch.bincount(of, minlength=len(images))
    slot = torch.arange(len(of), device=of.device) - (counts.cumsum(0) - counts)[of]
    cells = torch.from_numpy(batch.cells).to(images.device)
    masks = cells.new_zeros(len(images), max(int(counts.max()), 1), *maps["res5"].shape[-2:])
    masks[of, slot] = cells
    boxes = torch.from_numpy(batch.boxes).to(images.device).split(counts.tolist())
    dense = dense_embeddings(visual.attnpool, maps["res5"])
    return {
        "mask": masked_attention_pool(visual.attnpool, maps["res5"], masks)[of, slot],
        "roi": roi_embeddings(visual, maps["res4"], boxes),
        "dense": masked_mean(dense.float(), masks)[of, slot],
    }


def _colour_loss(embedded: Tensor, scale: Tensor, batch: CropBatch, classes: Tensor, tints: Tensor) -> Tensor:
    """Which colour a thing has, among the captions that give it one or none."""
    import torch
    import torch.nn.functional as F

    things = classes < len(tints)
    if not things.any():
        return embedded.sum() * 0
    said = tints[classes[things]]
    logits = scale * torch.einsum("nd,ncd->nc", embedded[things], said)
    colours = torch.from_numpy(batch.colours).to(classes.device)[things]
    return F.cross_entropy(logits, torch.where(colours < 0, said.shape[1] - 1, colours))
