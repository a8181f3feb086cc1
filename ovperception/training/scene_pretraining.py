"""Second stage of the tiny CLIP: it learns to name crops of scenes where they stand.

The mosaics of the first stage are no scenes: no ground runs under their tiles, and most tiles have one size.
Its captions, compared with those of one batch, also leave the names crowded in a few directions of the text
space. Here hundreds of names are candidates at each step, they are spread apart, and a crop is named along
every path by which a head will later ask for it: masked attention pooling, region pooling, the dense value
path, and, in some steps, as a picture of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovperception.datasets import scenes
from ovperception.training.batches import Normaliser
from ovperception.training.checkpoint import save_weights
from ovperception.training.contrastive import embed_captions
from ovperception.training.loop import Losses, TrainingRun
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.parameters import OptimizerSettings, make_optimizer
from ovperception.training.run_folder import describe_data, sitting
from ovperception.training.scene_crops import CropBatch, SceneCrops
from ovperception.training.schedule import Schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["ScenePretraining", "pretrain_on_scenes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePretraining:
    """Everything that makes a run of the second stage what it is.

    Attributes:
        name: of the recipe.
        out: folder of the run.
        clip: weights of the first stage.
        config: open_clip configuration of that CLIP.
        templates: what a name is prompted with; each step draws one a name.
        schedule: learning rate and length.
        optimizer: which one.
        loop: how the loop goes about it.
        megapixels: pixels of a step.
        native_share: share of the steps that see native crops alone: twice the crops for the same pixels,
            which is what teaches the shapes of tinted things.
        colour_share: share of the things that are tinted; more than in the scenes that are judged, since the
            colours of a thing are learnt long before its shape.
        frozen_stages: how many of stem, layer1, ... layer4 stay as they are.
        settled: share of the run after which the statistics of the norms stay as they are.
        roi_weight, dense_weight, colour_weight, spread_weight: of the further losses; the first, by mask,
            weighs 1.
        candidates: classes a step at least that a crop can be taken for; its own are among them.
        tinted: crops a step that are asked for their colour.
    """

    name: str = "tiny-clip-scenes"
    out: Path = Path("runs/tiny-clip-scenes")
    clip: Path = Path("runs/tiny-clip/clip.safetensors")
    config: Mapping[str, Any]
    templates: tuple[str, ...]
    schedule: Schedule = field(default_factory=lambda: Schedule(steps=6000, learning_rate=8e-4, warmup=50))
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(betas=(0.9, 0.98)))
    loop: LoopSettings = field(default_factory=LoopSettings)
    megapixels: float = 1.0
    native_share: float = 0.45
    colour_share: float = 0.55
    frozen_stages: int = 1
    settled: float = 0.8
    roi_weight: float = 0.5
    dense_weight: float = 0.25
    colour_weight: float = 0.2
    spread_weight: float = 0.3
    candidates: int = 300
    tinted: int = 24
    seed: int = 1
    device: str = "cpu"
    bfloat16: bool = True
    workers: int = 1


def pretrain_on_scenes(recipe: ScenePretraining) -> Path:
    """Run the recipe, resuming what its folder holds; returns the path of the whole CLIP's weights."""
    import torch

    from ovperception.training.heads import load_trained_clip

    path = recipe.out / "clip.safetensors"
    with sitting(recipe) as world:
        backbone = load_trained_clip(recipe.clip, recipe.config, "tiny").to(world.device)
        model: Any = backbone.model
        model.to(memory_format=torch.channels_last)
        for part in (*_stages(model.visual)[recipe.frozen_stages :], model.visual.attnpool):
            part.requires_grad_(True)
        for name, parameter in model.named_parameters():
            if not name.startswith("visual."):
                parameter.requires_grad = True
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
        crops = SceneCrops(
            seed=recipe.seed,
            megapixels=recipe.megapixels,
            native_size=model.visual.image_size,
            native_share=recipe.native_share,
            colour_share=recipe.colour_share,
            count=recipe.schedule.steps,
        )
        run.run(crops, _losses(recipe, run, model, backbone.tokenizer), workers=recipe.workers)
        run.settle()
        if world.writes:
            save_weights(model, path)
    return path


def _stages(visual: Any) -> tuple[Any, ...]:
    import torch

    stem = torch.nn.ModuleList(
        [module for name, module in visual.named_children() if name[:-1] in ("conv", "bn")]
    )
    return stem, visual.layer1, visual.layer2, visual.layer3, visual.layer4


def _losses(recipe: ScenePretraining, run: TrainingRun, model: Any, tokenizer: Any) -> Losses:
    import torch
    import torch.nn.functional as F

    device = run.world.device
    normalise = Normaliser(recipe.config["preprocess_cfg"], device)
    words = _Words(recipe.templates, tokenizer)

    def losses(batch: CropBatch) -> Mapping[str, Tensor]:
        # The statistics of the norms are those of scenes and mosaics together, never of native crops alone.
        norms_follow = recipe.schedule.progress(run.step, run.elapsed_s) < recipe.settled
        model.visual.train(norms_follow and batch.cells is not None)
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=recipe.bfloat16):
            paths = _embed(model.visual, normalise(batch.canvases), batch)
        said = words.of_step(np.random.Generator(np.random.PCG64([recipe.seed, run.step, 4])), batch, recipe)
        texts = F.normalize(_embed_by_length(model, said.tokens.to(device)), dim=-1)
        scale = model.logit_scale.exp().clamp(max=100.0)
        return _named_losses(recipe, paths, texts, said, batch, scale)

    return losses


def _named_losses(
    recipe: ScenePretraining,
    paths: Mapping[str, Tensor],
    texts: Tensor,
    said: _Said,
    batch: CropBatch,
    scale: Tensor,
) -> dict[str, Tensor]:
    """Each path's crops against the candidates' names, crops against tints, and the names apart."""
    import torch
    import torch.nn.functional as F

    device = texts.device
    names = texts[: len(said.classes)]
    column = {int(c): k for k, c in enumerate(said.classes)}
    classes = torch.tensor([column[int(c)] for c in batch.classes], device=device)
    named = {"spread": recipe.spread_weight * _spread(names)}
    weights = {"mask": 1.0, "native": 1.0, "roi": recipe.roi_weight, "dense": recipe.dense_weight}
    for path, raw in paths.items():
        embedded = F.normalize(raw.float(), dim=-1)
        named[path] = weights[path] * F.cross_entropy(scale * embedded @ names.T, classes)
        if path in ("mask", "native") and len(said.asked):
            asked = torch.from_numpy(said.asked).to(device)
            tints = texts[len(names) :].unflatten(0, (len(asked), 2))
            options = torch.cat((names[classes[asked]][:, None], tints), 1)
            logits = scale * torch.einsum("nd,nod->no", embedded[asked], options)
            has_colour = torch.from_numpy(batch.colours >= 0).to(device)[asked]
            named["colour"] = recipe.colour_weight * F.cross_entropy(logits, has_colour.long())
    return named


def _embed_by_length(model: Any, tokens: Tensor) -> Tensor:
    """(T, D): the short prompts apart from the long ones, so that little is computed for padding."""
    import torch

    order = tokens.argmax(dim=-1).argsort()
    embedded = torch.cat([embed_captions(model, tokens[part]).float() for part in order.chunk(3)])
    return embedded[order.argsort()]


def _spread(names: Tensor) -> Tensor:
    """How far names are from being told apart by a blunt comparison (temperature 0.1)."""
    import torch
    import torch.nn.functional as F

    return F.cross_entropy(10 * names @ names.T, torch.arange(len(names), device=names.device))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """The texts of a step: one a candidate, then two tints of each crop that is asked for its colour.

    Attributes:
        tokens: (T, L) token ids.
        classes: (C,) int64, whose names the first C texts are.
        asked: (M,) int64, indices of crops; of its two tints the first is the crop's own, if it has one.
    """

    tokens: Tensor
    classes: NDArray[np.int64]
    asked: NDArray[np.int64]


class _Words:
    """Prompts and their tokens; a prompt is tokenized once."""

    def __init__(self, templates: tuple[str, ...], tokenizer: Any) -> None:
        self.templates, self.tokenizer = templates, tokenizer
        self.tokens: dict[str, Tensor] = {}

    def of_step(self, rng: np.random.Generator, batch: CropBatch, recipe: ScenePretraining) -> _Said:
        """One prompt a candidate, with any of its names, and tints for some of the things."""
        import torch

        categories = scenes.load_categories()
        colours = tuple(scenes.COLOURS)
        present = np.unique(batch.classes)
        others = np.setdiff1d(np.arange(len(categories)), present)
        drawn = rng.permutation(others)[: max(recipe.candidates - len(present), 50)]
        candidates = np.concatenate((present, drawn))
        texts = []
        for c in candidates:
            names = categories[c].names
            texts.append(self._prompt(rng, names[int(rng.integers(len(names)))]))
        things = [i for i in range(len(batch.classes)) if categories[batch.classes[i]].is_thing]
        # Tinted things first: they are the fewer.
        rng.shuffle(things)
        things.sort(key=lambda i: batch.colours[i] < 0)
        asked = things[: recipe.tinted]
        for i in asked:
            own = int(batch.colours[i])
            tints = [c for c in range(len(colours)) if c != own]
            first = own if own >= 0 else tints.pop(int(rng.integers(len(tints))))
            name = categories[batch.classes[i]].name
            for colour in (first, tints[int(rng.integers(len(tints)))]):
                texts.append(self._prompt(rng, f"{colours[colour]} {name}"))
        new = [text for text in dict.fromkeys(texts) if text not in self.tokens]
        self.tokens.update(zip(new, self.tokenizer(new).ids if new else (), strict=True))
        return _Said(
            tokens=torch.stack([self.tokens[text] for text in texts]),
            classes=candidates,
            asked=np.array(asked, np.int64),
        )

    def _prompt(self, rng: np.random.Generator, name: str) -> str:
        return self.templates[int(rng.integers(len(self.templates)))].format(name)


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
