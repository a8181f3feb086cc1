"""`ovp train regionclip-pretrain`: region-text alignment on captioned pictures from tar shards.

Zhong et al. 2022, section 3.2, by the published numbers: SGD at 0.002, 96 pictures a step, 600,000 steps,
100 regions a picture. Teacher and student begin as the same CLIP; of the student, stem, first stage and the
statistics of all norms stay as they are. Differs: captions are contrasted within a process and not over all
of them, and where no proposer is given, regions are drawn at random, which the paper tried as well.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from heads.regionclip.pretraining import PretrainingSettings, pretraining_losses
from ovperception.errors import InvalidParameter, Unsupported
from ovperception.training.augmentations import Augmentation, ShortestEdge
from ovperception.training.gradients import GradientClip
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.parameters import OptimizerSettings
from ovperception.training.recipes import Recipe
from ovperception.training.schedule import Schedule
from ovperception.training.wrong_data import WrongDataPolicy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovperception.backbones.clip import ClipBackbone
    from ovperception.preprocess import Preprocessing
    from ovperception.proposals import Proposer
    from ovperception.training.distributed import World
    from ovperception.training.image_text_batches import CaptionedBatch
    from ovperception.training.loop import Losses
    from ovperception.training.streams import ImageTextStream
    from ovperception.training.wrong_data import WrongData

__all__ = ["RECIPE", "RegionPretraining", "pretrain_regions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionPretraining:
    """Everything that makes a run what it is.

    Attributes:
        name: of the recipe.
        out: folder of the run.
        model: the CLIP that teacher and student begin as, a ModifiedResNet: a name or a bundle of ours, or
            ``open_clip:ARCH/PRETRAINED``.
        weights: of that open_clip architecture, where they are a file.
        shards: folder of tar files of pictures with captions (``KEY.jpg`` beside ``KEY.txt``).
        pattern: of their names.
        concepts: the pool of names for regions: the name of a list or the path of one.
        proposer: name or bundle of a model with a RegionCLIP head, whose proposer finds the regions; empty:
            they are drawn at random.
        regions: of a picture.
        templates: what a concept is prompted with; empty: as the model does.
        augmentation: how pictures are seen.
        batch_size: pictures in a step, over all processes.
        block: pictures that a worker mixes at a time.
        frozen_stages: how many of stem, layer1, ... layer4 stay as they are.
        loss: weights and constants.
        wrong_data: what happens where the data is wrong.
    """

    name: str = "regionclip-pretrain"
    out: Path = Path("runs/regionclip-pretrain")
    model: str = "open_clip:RN50/openai"
    weights: Path | None = None
    shards: Path = Path("data/cc3m")
    pattern: str = "*.tar"
    concepts: str = "lvis_v1_1203"
    proposer: str = ""
    regions: int = 100
    templates: tuple[str, ...] = ()
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(resize=ShortestEdge(edges=(800,), longest=1333))
    )
    batch_size: int = 96
    block: int = 1000
    frozen_stages: int = 2
    loss: PretrainingSettings = field(default_factory=PretrainingSettings)
    wrong_data: WrongDataPolicy = field(default_factory=WrongDataPolicy)
    schedule: Schedule = field(
        default_factory=lambda: Schedule(
            steps=600_000,
            learning_rate=0.002,
            warmup=1000,
            warmup_from=0.001,
            shape="steps",
            decay_at=(300_000 / 600_000, 525_000 / 600_000),
        )
    )
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(
            kind="sgd", momentum=0.9, weight_decay=1e-4, decay_but_norms=True
        )
    )
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(clip=GradientClip(kind="norm_each", limit=5.0), save_every=5000)
    )
    seed: int = 0
    device: str = "cuda"
    bfloat16: bool = False
    workers: int = 4

    def __post_init__(self) -> None:
        """Refuse counts that are none."""
        for name, least in (("regions", 1), ("batch_size", 1), ("frozen_stages", 0)):
            if getattr(self, name) < least:
                raise InvalidParameter(f"{name} counts from {least}", field=name, got=getattr(self, name))


def pretrain_regions(recipe: RegionPretraining) -> Path:
    """Run the recipe, resuming what its folder holds; returns the bundle of the student.

    Raises:
        Unsupported: the CLIP is no ModifiedResNet.
    """
    from ovperception.training.data_recipe import open_base
    from ovperception.training.loop import TrainingRun
    from ovperception.training.parameters import make_optimizer
    from ovperception.training.run_folder import describe_data, sitting
    from ovperception.training.wrong_data import WrongData
    from ovperception.training.wrong_data_report import told_at_the_end

    path = recipe.out / f"{recipe.out.name}.safetensors"
    with sitting(recipe) as world:
        base = open_base(recipe.model, recipe.weights, recipe.out.name)
        backbone = base.backbone.to(world.device)
        if backbone.spec.family != "resnet":
            raise Unsupported(
                "RegionCLIP trains a CLIP whose last stage runs on single regions",
                field="model",
                expected="a ModifiedResNet such as open_clip:RN50/openai",
                got=backbone.spec.name,
            )
        templates = recipe.templates or base.card.templates
        concepts, facts = _concepts(recipe, backbone, templates)
        student = _student(backbone, recipe.frozen_stages)
        if world.writes:
            describe_data(recipe, facts | {"backbone": backbone.spec.digest})
        run = TrainingRun(
            folder=recipe.out,
            module=student,
            optimizer=make_optimizer(student, recipe.optimizer, recipe.schedule.learning_rate),
            schedule=recipe.schedule,
            settings=recipe.loop,
            world=world,
        )
        run.resume()
        wrong = WrongData(recipe.wrong_data)
        pictures = _pictures(recipe, world, base.preprocessing, wrong)
        with told_at_the_end(wrong, recipe.out, world):
            run.run(pictures, _losses(recipe, student, backbone, concepts))
        run.settle()
        if world.writes:
            _bundle(recipe, base, student, path)
    return path


def _concepts(
    recipe: RegionPretraining, backbone: ClipBackbone, templates: Any
) -> tuple[Tensor, dict[str, Any]]:
    """(K, D), one a concept, and what ``data.json`` tells of them."""
    import torch

    from ovperception.text import TextEncoder
    from ovperception.training.data_settings import read_vocabulary
    from ovperception.vocabulary import Vocabulary

    words = read_vocabulary(recipe.concepts)
    # A concept is one name: a region is not to be named by several that mean the same.
    alone = Vocabulary(classes=tuple(dataclasses.replace(c, synonyms=(c.name,)) for c in words.classes))
    with torch.no_grad():
        classifier = TextEncoder(backbone, templates=templates).classifier(alone)
    return classifier.embeddings, {"concepts": words.content_hash}


def _student(backbone: ClipBackbone, frozen_stages: int) -> nn.Module:
    """A copy of the image tower whose later stages learn; its norms stay as they are."""
    import torch

    visual: Any = copy.deepcopy(backbone.model.visual)
    visual.requires_grad_(False)
    stages = ("stem", "layer1", "layer2", "layer3", "layer4")
    for name in (*stages[max(frozen_stages, 1) :], "attnpool"):
        getattr(visual, name).requires_grad_(True)
    if not frozen_stages:
        for name, module in visual.named_children():
            if name.startswith(("conv", "bn")):
                module.requires_grad_(True)
    for module in visual.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.requires_grad_(False)
    return cast("nn.Module", visual.eval())


def _pictures(
    recipe: RegionPretraining, world: World, preprocessing: Preprocessing, wrong: WrongData
) -> ImageTextStream:
    from ovperception.training.image_text import find_shards
    from ovperception.training.image_text_batches import ImageTextBatches
    from ovperception.training.streams import ImageTextStream

    batches = ImageTextBatches(
        shards=find_shards(recipe.shards, recipe.pattern),
        augmentation=recipe.augmentation,
        preprocessing=preprocessing,
        batch_size=world.share_of(recipe.batch_size, recipe.loop.accumulate),
        seed=recipe.seed,
        block=recipe.block,
        rank=world.rank,
        ranks=world.size,
        workers=recipe.workers,
        for_gpu=world.device.startswith("cuda"),
    )
    return ImageTextStream(batches=batches, wrong=wrong)


def _losses(recipe: RegionPretraining, student: nn.Module, teacher: ClipBackbone, concepts: Tensor) -> Losses:
    import torch

    find = _region_finder(recipe, teacher)
    device = teacher.device
    frozen: Any = teacher.model.visual

    def losses(batch: CaptionedBatch) -> Mapping[str, Tensor]:
        images = batch.images.to(device, non_blocking=True)
        regions = find(images)
        whole = torch.tensor([[0.0, 0.0, images.shape[3], images.shape[2]]], device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
            with torch.no_grad():
                taught, _ = _embed(frozen, images, regions)
                captions = teacher.embed_text(batch.captions)
            named, seen = _embed(student, images, regions, whole)
        return pretraining_losses(
            named, taught, concepts, images=seen, captions=captions.to(seen), settings=recipe.loss
        )

    return losses


def _embed(
    visual: Any, images: Tensor, regions: Sequence[Tensor], whole: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(R, D) of the regions and (B, D) of the whole pictures, none without `whole`; in float32."""
    import torch

    from ovperception.backbones.resnet import roi_embeddings

    res4 = visual.layer3(visual.layer2(visual.layer1(visual.stem(images))))
    boxes = [r if whole is None else torch.cat((r, whole)) for r in regions]
    found = roi_embeddings(visual, res4, boxes).float()
    if whole is None:
        return found, found[:0]
    parts = found.split([len(b) for b in boxes])
    return torch.cat([p[:-1] for p in parts]), torch.stack([p[-1] for p in parts])


def _region_finder(recipe: RegionPretraining, teacher: ClipBackbone) -> Any:
    """Padded pictures (B, 3, H, W) to B tensors (N_i, 4) xyxy."""
    import torch

    from ovperception.model import load

    if not recipe.proposer:
        return lambda images: _drawn(images, recipe.regions)
    model = load(recipe.proposer, device=str(teacher.device))
    head: Any = model.heads.get("regionclip")
    if head is None or not head.proposes:
        raise InvalidParameter(
            f"{recipe.proposer!r} has no RegionCLIP head that proposes", field="proposer", got=recipe.proposer
        )
    proposer = cast("Proposer", head.proposer)

    @torch.no_grad()
    def proposed(images: Tensor) -> list[Tensor]:
        found = proposer.propose(model.backbone.features(images))
        # As published: some of the likeliest, by chance.
        return [p.boxes[torch.randperm(len(p.boxes))[: recipe.regions].to(p.boxes.device)] for p in found]

    return proposed


def _drawn(images: Tensor, count: int) -> list[Tensor]:
    """Boxes anywhere, their sides from an eighth to all of the picture's."""
    import torch

    height, width = images.shape[-2:]
    found = []
    for _ in range(len(images)):
        sides = 0.125 ** torch.rand(count, 2)
        corners = torch.rand(count, 2) * (1 - sides)
        boxes = torch.cat((corners, corners + sides), dim=1)
        found.append((boxes * torch.tensor([width, height, width, height])).to(images.device))
    return found


def _bundle(recipe: RegionPretraining, base: Any, student: nn.Module, path: Path) -> Path:
    """The student as a backbone of its own, with a head that names given boxes."""
    from heads.regionclip.model import RegionCLIP
    from ovperception.bundle import BackboneCard, HeadCard, write_bundle

    backbone: ClipBackbone = base.backbone
    visual: Any = backbone.model.visual
    visual.load_state_dict(student.state_dict())
    backbone.load_state_dict(backbone.state_dict())  # so that it forgets the digest of its old weights
    head = RegionCLIP.from_settings({}, backbone.spec)
    described = base.card.backbone
    card = base.card.model_copy(
        update={
            "name": recipe.out.name,
            "version": "1",
            "summary": f"A CLIP of {described.name} whose regions were aligned with words.",
            "backbone": BackboneCard(
                name=described.name, config=described.config, digest=backbone.spec.digest
            ),
            "heads": (HeadCard(name="regionclip", config=head.config.to_dict()),),
            "templates": recipe.templates or base.card.templates,
            "vocabulary": "",
            "paper": "https://arxiv.org/abs/2112.09106",
            "source": f"`ovp train` {recipe.name}, from {recipe.model}",
            "scores": {},
            "verified": (),
        }
    )
    tensors = {f"backbone.{k}": v for k, v in backbone.model.state_dict().items()}
    return write_bundle(path, card, tensors)


RECIPE = Recipe(
    summary="RegionCLIP's first training: regions and words of captioned pictures from tar shards",
    settings=RegionPretraining,
    run=pretrain_regions,
)
