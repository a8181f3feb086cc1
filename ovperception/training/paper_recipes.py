"""The recipes of the papers, by their published numbers, and the one for your own data.

Sources: bytedance/fc-clip and facebookresearch/Mask2Former ``configs/coco/panoptic-segmentation``;
microsoft/RegionCLIP ``configs`` and ``docs``; isl-org/lang-seg ``train.sh`` and ``modules``. A rate that a
source changes at an iteration is written as that fraction of the run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ovperception.proposals.clip_rpn import ClipRPNSettings
from ovperception.training.augmentations import Augmentation, LargeScaleJitter, ShortestEdge
from ovperception.training.data_recipe import DataRecipe
from ovperception.training.data_settings import DataSettings
from ovperception.training.gradients import GradientClip
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.parameters import OptimizerSettings
from ovperception.training.schedule import Schedule

__all__ = [
    "fcclip_coco",
    "lseg_ade20k",
    "lseg_pascal5i",
    "my_data",
    "regionclip_coco",
    "regionclip_lvis",
]

ADE_IMAGES = 20_210
"""Training pictures, by which epochs become steps."""

VOC_AUG_IMAGES = 10_582
"""Training pictures of PASCAL VOC 2012 with SBD's labels."""


def my_data() -> DataRecipe:
    """A COCO-format file and a folder of pictures; the head of `model` goes on learning from them."""
    return DataRecipe(
        name="my-data",
        out=Path("runs/my-data"),
        data=DataSettings(),
        augmentation=Augmentation.large_scale_jitter((384, 384), (0.5, 1.5)),
        loss={},
        schedule=Schedule(steps=1000, learning_rate=1e-4, warmup=50),
        loop=LoopSettings(clip=GradientClip(kind="norm", limit=1.0)),
    )


def fcclip_coco() -> DataRecipe:
    """FC-CLIP on COCO panoptic: 50 epochs of batches of 16, large-scale jitter to 1024, AdamW at 1e-4."""
    return DataRecipe(
        name="fcclip",
        out=Path("runs/fcclip"),
        model="open_clip:convnext_large_d_320/laion2b_s29b_b131k_ft_soup",
        head="fcclip",
        fresh=True,
        data=DataSettings(name="coco_panoptic", split="train", root=Path("data/coco")),
        augmentation=Augmentation.large_scale_jitter((1024, 1024), (0.1, 2.0)),
        shortest_edge=800,
        longest_edge=1333,
        batch_size=16,
        schedule=Schedule(
            steps=368_750,
            learning_rate=1e-4,
            warmup=10,
            warmup_from=1.0,
            shape="steps",
            decay_at=(327_778 / 368_750, 355_092 / 368_750),
        ),
        optimizer=OptimizerSettings(kind="adamw", weight_decay=0.05, decay_but_norms=True),
        loop=LoopSettings(clip=GradientClip(kind="norm", limit=0.01), save_every=5000),
        bfloat16=True,
        device="cuda",
        workers=4,
    )


def regionclip_coco() -> DataRecipe:
    """RegionCLIP on the 48 base classes of COCO: the schedule of fine-tuning, 90,000 steps of 16.

    Here what runs on regions learns, the last stage and the attention pool, and besides the proposer and the
    box deltas; published, the second and third stage learn as well, and proposals come from an RPN trained
    before.
    """
    return DataRecipe(
        name="regionclip",
        out=Path("runs/regionclip"),
        model="open_clip:RN50/openai",
        head="regionclip",
        fresh=True,
        settings={"box_deltas": True, "proposer": ClipRPNSettings().to_dict()},
        tune=("layer4", "attnpool"),
        data=DataSettings(name="ov_coco", split="train", root=Path("data/coco"), part="base", shapes="boxes"),
        augmentation=Augmentation(resize=ShortestEdge(edges=(640, 672, 704, 736, 768, 800), longest=1333)),
        shortest_edge=800,
        longest_edge=1333,
        batch_size=16,
        loss={"background_weight": 0.2, "focal_gamma": 0.5, "regions": 512, "foreground_share": 0.25},
        schedule=_detectron2(90_000, (60_000, 80_000), warmup=5000),
        optimizer=OptimizerSettings(kind="sgd", momentum=0.9, weight_decay=1e-4, decay_but_norms=True),
        loop=LoopSettings(clip=GradientClip(kind="none"), save_every=5000),
        device="cuda",
        workers=4,
    )


def regionclip_lvis() -> DataRecipe:
    """The same on LVIS's 866 frequent and common classes: 180,000 steps, pictures of rare classes repeated.

    The background weighs 0.8, without a focal factor.
    """
    coco = regionclip_coco()
    return dataclasses.replace(
        coco,
        name="regionclip-lvis",
        out=Path("runs/regionclip-lvis"),
        data=DataSettings(name="lvis_v1", split="train", root=Path("data/lvis"), part="base", shapes="boxes"),
        repeat_threshold=0.001,
        loss={**coco.loss, "background_weight": 0.8, "focal_gamma": None},
        schedule=_detectron2(180_000, (120_000, 160_000), warmup=5000),
    )


def _detectron2(steps: int, decays: tuple[int, int], *, warmup: int) -> Schedule:
    return Schedule(
        steps=steps,
        learning_rate=0.002,
        warmup=warmup,
        warmup_from=0.001,
        shape="steps",
        decay_at=tuple(at / steps for at in decays),
    )


def lseg_ade20k() -> DataRecipe:
    """LSeg on ADE20K: 240 epochs of batches of 16, crops of 480, polynomial decay by epochs.

    The trunk learns at 0.004 and the decoder at ten times that: the published rule is 0.004 for 16 pictures,
    and their `train.sh` sees one a GPU. The published trunk began from ImageNet's
    weights: give them with ``init``, a state of this head; without, it begins at random.
    """
    epochs = 240
    return DataRecipe(
        name="lseg",
        out=Path("runs/lseg"),
        model="open_clip:ViT-B-32/openai",
        head="lseg",
        fresh=True,
        settings={
            "trunk": {
                "width": 1024,
                "depth": 24,
                "heads": 16,
                "patch_size": 16,
                "grid": (24, 24),
                "taps": (5, 11, 17, 23),
            }
        },
        data=DataSettings(name="ade20k_150", split="training", root=Path("data/ade20k")),
        # The longer side is drawn evenly from 260 to 1040.
        augmentation=Augmentation(
            resize=LargeScaleJitter(size=(520, 520), scales=(0.5, 2.0)), crop=(480, 480)
        ),
        shortest_edge=480,
        batch_size=16,
        schedule=Schedule(
            steps=epochs * -(-ADE_IMAGES // 16),
            learning_rate=0.004,
            warmup=0,
            shape="poly",
            power=0.9,
            stairs=epochs,
        ),
        optimizer=OptimizerSettings(
            kind="sgd", momentum=0.9, weight_decay=1e-4, decay_all=True, faster={"decoder.": 10.0}
        ),
        loop=LoopSettings(clip=GradientClip(kind="none"), save_every=1000),
        templates=("{}",),
        device="cuda",
        workers=4,
    )


def lseg_pascal5i() -> DataRecipe:
    """LSeg on a fold of PASCAL-5i: the fifteen classes of the other folds; `data.name` says which fold.

    The sizes and the schedule are those of ADE20K over 50 epochs of its pictures: for the folds only scores
    were published. Published, a picture is trained on as one class against "others"; here its pixels
    are told among all fifteen, and those of other classes are ignored.
    """
    ade, epochs = lseg_ade20k(), 50
    return dataclasses.replace(
        ade,
        name="lseg-pascal5i",
        out=Path("runs/lseg-pascal5i"),
        data=DataSettings(name="pascal_5i_0", split="train", root=Path("data/pascal")),
        schedule=dataclasses.replace(ade.schedule, steps=epochs * -(-VOC_AUG_IMAGES // 16), stairs=epochs),
    )
