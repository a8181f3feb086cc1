"""The recipes by name: what made the models of this package, for anyone to run again or change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ovperception.datasets.scenes.vocabulary import scenes_vocabulary
from ovperception.preprocess import Preprocessing
from ovperception.training.contrastive import TINY_CLIP, ContrastiveRecipe, train_contrastive
from ovperception.training.data_recipe import DataRecipe, train_on_data
from ovperception.training.gradients import GradientClip
from ovperception.training.heads import HeadRecipe, bundle_head, train_head
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.mosaics import MosaicSampler
from ovperception.training.paper_recipes import (
    fcclip_coco,
    lseg_ade20k,
    lseg_pascal5i,
    my_data,
    regionclip_coco,
    regionclip_lvis,
)
from ovperception.training.recipe_files import with_overrides
from ovperception.training.scene_pretraining import ScenePretraining, pretrain_on_scenes
from ovperception.training.schedule import Schedule

__all__ = [
    "RECIPES",
    "Recipe",
    "known_recipes",
    "tiny_clip",
    "tiny_clip_scenes",
    "tiny_fcclip",
    "tiny_lseg",
    "tiny_regionclip",
    "with_overrides",
]

GROUP = "ovperception.recipes"

#: What the tiny model is prompted with: the shapes of caption it was trained on.
TINY_TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "a photo of the {}.", "{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One entry of the list.

    Attributes:
        summary: one line for `ovp train --help`.
        settings: the defaults, a frozen dataclass whose fields can be overridden.
        run: does it; returns the file it made.
    """

    summary: str
    settings: Callable[[], Any]
    run: Callable[[Any], Path]


def tiny_clip() -> ContrastiveRecipe:
    """A CLIP of 7.2 M parameters on captioned crops of every category of the world."""
    return ContrastiveRecipe(
        out=Path("runs/tiny-clip"),
        config=TINY_CLIP,
        sampler=MosaicSampler(),
        schedule=Schedule(steps=3000, learning_rate=2e-3, warmup=150),
    )


def tiny_clip_scenes() -> ScenePretraining:
    """That CLIP taught to name crops of scenes where they stand."""
    return ScenePretraining(config=TINY_CLIP, templates=TINY_TEMPLATES)


def tiny_fcclip() -> HeadRecipe:
    """An FC-CLIP head of 2 M parameters on that CLIP, from boxes and masks of base classes alone."""
    statistics = TINY_CLIP["preprocess_cfg"]
    mean, std = (tuple(255 * v for v in statistics[key]) for key in ("mean", "std"))
    return HeadRecipe(
        name="tiny-fcclip",
        out=Path("runs/tiny-fcclip"),
        backbone=Path("runs/tiny-clip-scenes/clip.safetensors"),
        config=TINY_CLIP,
        head="fcclip",
        settings={
            "hidden_dim": 128,
            "mask_dim": 128,
            "queries": 50,
            "encoder_layers": 2,
            "encoder_ffn": 512,
            "decoder_layers": 3,
            "decoder_ffn": 512,
            "cover_small_masks": True,
            "min_fragment": 0.95,
            "box_share": 0.7,
            "seen_weight": 0.65,
            "unseen_weight": 0.85,
            "seen_words": scenes_vocabulary("base").texts,
        },
        preprocessing=Preprocessing(mean=mean, std=std, longest_edge=1280),
        shortest_edge=800,
        batch_size=4,
        size=(384, 384),
        objects=(3, 7),
        large_share=0.4,
        enlarged=2.0,
        loss={"points": 1024},
        schedule=Schedule(steps=2600, learning_rate=5e-4, warmup=60),
        loop=LoopSettings(clip=GradientClip(kind="norm", limit=1.0)),
        templates=TINY_TEMPLATES,
    )


def tiny_regionclip() -> HeadRecipe:
    """A proposer of 1 M parameters on that CLIP's own maps, from boxes of base classes alone.

    The names come from the frozen CLIP, untouched: its region features, its temperature, no learned deltas.
    """
    from ovperception.proposals.clip_rpn import ClipRPNSettings

    return dataclasses.replace(
        tiny_fcclip(),
        name="tiny-regionclip",
        out=Path("runs/tiny-regionclip"),
        head="regionclip",
        settings={"proposer": ClipRPNSettings().to_dict()},
        loss={},
        schedule=Schedule(steps=3000, learning_rate=1e-3, warmup=60),
    )


def tiny_lseg() -> HeadRecipe:
    """A DPT decoder of 1 M parameters on that CLIP's maps, from pixels of base classes alone.

    It says where each pixel reads the frozen CLIP, at three scales, so that words it was never taught keep
    their meaning; what it learns about words is added, and held near the CLIP.
    """
    return dataclasses.replace(
        tiny_fcclip(),
        name="tiny-lseg",
        out=Path("runs/tiny-lseg"),
        head="lseg",
        settings={
            "stages": ("res2", "res3", "res4", "res5"),
            "features": 48,
            "grow": 1,
            "read": {"stages": ("res5", "res5/1", "res5/2")},
            "seen_words": scenes_vocabulary("base").texts,
            "seen_weight": 0.5,
            "unseen_weight": 0.0,
        },
        loss={"pixels": 768, "balance": 0.5, "candidates": 160, "frozen": 1.0, "keep": 2.0},
        schedule=Schedule(steps=4000, learning_rate=1e-3, warmup=60),
    )


def _train_clip(recipe: ContrastiveRecipe) -> Path:
    return train_contrastive(recipe)


def _train_clip_on_scenes(recipe: ScenePretraining) -> Path:
    return pretrain_on_scenes(recipe)


def _train_regionclip(recipe: HeadRecipe) -> Path:
    head = train_head(recipe)
    card = {
        "name": "tiny-regionclip",
        "summary": "A CLIP of 7 M parameters and a RegionCLIP head that proposes on the CLIP's own maps, "
        "trained from nothing on procedural scenes.",
        "vocabulary": "scenes_base",
        "background": "scenes",
        "defaults": {"score_threshold": 0.4, "nms_iou_threshold": 0.4},
        "licence": "Apache-2.0; the world's glyphs are Noto Color Emoji, OFL-1.1",
        "paper": "https://arxiv.org/abs/2112.09106",
        "source": "`ovp train tiny-clip`, `tiny-clip-scenes`, `tiny-regionclip`",
    }
    return bundle_head(recipe, head, recipe.out / "tiny-regionclip.safetensors", card)


def _train_lseg(recipe: HeadRecipe) -> Path:
    head = train_head(recipe)
    card = {
        "name": "tiny-lseg",
        "summary": "A CLIP of 7 M parameters and an LSeg decoder that says where each pixel reads the CLIP, "
        "trained from nothing on procedural scenes.",
        "vocabulary": "scenes_base",
        "licence": "Apache-2.0; the world's glyphs are Noto Color Emoji, OFL-1.1",
        "paper": "https://arxiv.org/abs/2201.03546",
        "source": "`ovp train tiny-clip`, `tiny-clip-scenes`, `tiny-lseg`",
        "deviations": (
            "The pixels' embeddings are the frozen CLIP's, read where the decoder says, plus what it "
            "learned; the published decoder makes them alone.",
        ),
    }
    return bundle_head(recipe, head, recipe.out / "tiny-lseg.safetensors", card)


def _train_head(recipe: HeadRecipe) -> Path:
    head = train_head(recipe)
    card = {
        "name": "tiny",
        "summary": "A CLIP of 7 M parameters and an FC-CLIP head, trained from nothing on procedural scenes.",
        "vocabulary": "scenes_base",
        "background": "scenes",
        "defaults": {
            "score_threshold": 0.1,
            "nms_iou_threshold": 0.45,
            "panoptic_score_threshold": 0.3,
            "overlap_threshold": 0.7,
        },
        "panoptic_rule": "masks",
        "licence": "Apache-2.0; the world's glyphs are Noto Color Emoji, OFL-1.1",
        "paper": "https://arxiv.org/abs/2308.02487",
        "source": "`ovp train tiny-clip`, `tiny-clip-scenes`, `tiny-fcclip`",
    }
    return bundle_head(recipe, head, recipe.out / "tiny.safetensors", card)


def _on_data(summary: str, settings: Callable[[], DataRecipe]) -> Recipe:
    return Recipe(summary=summary, settings=settings, run=train_on_data)


RECIPES: Mapping[str, Recipe] = {
    "my-data": _on_data("your COCO-format file and folder of pictures: a head goes on learning", my_data),
    "tiny-clip": Recipe(
        summary="contrastive training of the tiny CLIP on captioned crops",
        settings=tiny_clip,
        run=_train_clip,
    ),
    "tiny-clip-scenes": Recipe(
        summary="second stage: captioned crops of scenes, in place",
        settings=tiny_clip_scenes,
        run=_train_clip_on_scenes,
    ),
    "tiny-fcclip": Recipe(
        summary="FC-CLIP head on the tiny CLIP, base classes only; writes the bundle",
        settings=tiny_fcclip,
        run=_train_head,
    ),
    "tiny-regionclip": Recipe(
        summary="RegionCLIP head on the tiny CLIP: boxes from base classes, names from the frozen CLIP",
        settings=tiny_regionclip,
        run=_train_regionclip,
    ),
    "tiny-lseg": Recipe(
        summary="LSeg decoder on the tiny CLIP, base classes only; writes the bundle",
        settings=tiny_lseg,
        run=_train_lseg,
    ),
    "fcclip": _on_data("FC-CLIP on COCO panoptic, as published", fcclip_coco),
    "regionclip": _on_data("RegionCLIP on OV-COCO: the published fine-tuning schedule", regionclip_coco),
    "regionclip-lvis": _on_data(
        "the same on LVIS: 866 base classes, repeat-factor sampling", regionclip_lvis
    ),
    "lseg": _on_data("LSeg on ADE20K, as published", lseg_ade20k),
    "lseg-pascal5i": _on_data("LSeg on a fold of PASCAL-5i: the classes of the other folds", lseg_pascal5i),
}


def known_recipes() -> Mapping[str, Recipe]:
    """These recipes and those of installed packages: entry points of the group ``ovperception.recipes``."""
    found = {point.name: point.load() for point in entry_points(group=GROUP) if point.name not in RECIPES}
    return {**RECIPES, **found}
