"""A head trained on files: your own, or a data set that has a name; live, or on features that were kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovperception.bundle import (
    BackboneCard,
    Bundle,
    HeadCard,
    ModelCard,
    read_bundle,
    read_card,
    write_bundle,
)
from ovperception.catalogue import locate
from ovperception.errors import InvalidParameter, UnknownHead
from ovperception.preprocess import Preprocessing
from ovperception.training.augmentations import Augmentation
from ovperception.training.data_settings import DataSettings, open_training_images
from ovperception.training.evaluation import Evaluate, evaluator
from ovperception.training.heads import head_losses, run_head
from ovperception.training.held_out import held_out_losses
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.loss_scale import multiplied_in
from ovperception.training.parameters import OptimizerSettings
from ovperception.training.recipe_check import check_recipe
from ovperception.training.run_folder import describe_data, sitting
from ovperception.training.schedule import Schedule
from ovperception.training.wrong_data import WrongData, WrongDataPolicy
from ovperception.training.wrong_data_report import told_at_the_end

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovperception.backbones.clip import ClipBackbone
    from ovperception.training.batches import BatchSource
    from ovperception.training.coco_targets import TrainingImages
    from ovperception.training.distributed import World
    from ovperception.vocabulary import Vocabulary

__all__ = ["Base", "DataRecipe", "open_base", "train_on_data"]

_OPEN_CLIP = "open_clip:"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecipe:
    """A head on a frozen backbone, from files.

    Attributes:
        name: of the recipe.
        out: folder of the run.
        model: whose backbone it stands on: a name or a bundle of ours, or ``open_clip:ARCH/PRETRAINED``.
        weights: of that open_clip architecture, where they are a file.
        head: which head; empty: the first of the model's.
        fresh: begin at random, even if the model has such a head.
        settings: the head's own; those of the model's head where it is gone on with.
        tune: stages of the image tower that learn with the head, ``("layer4", "attnpool")`` of a
            ModifiedResNet: what runs on single regions. The finished model then has a backbone of its own.
        data: what is learned from.
        held_out: what is evaluated on, during training; None: nothing.
        augmentation: how pictures are seen.
        shortest_edge, longest_edge: to which the finished model resizes pictures; None: as the model does.
        views: different views of a picture; None: never the same again.
        cache: folder of features that `ovp features export` wrote for these settings; None: they are computed
            live.
        wrong_data: what happens where the data is wrong.
        repeat_threshold: pictures with a class that fewer than this share of the pictures have are seen more
            often (`ovperception.training.repeat_factors`), 0.001 for LVIS; 0: each once an epoch.
        batch_size: pictures in a step, over all processes.
        init: state of another run to begin from, or None.
        loss: fields of the head's `loss_settings`.
        schedule: learning rate and length.
        optimizer: which one.
        loop: how the loop goes about it.
        templates: what a class is prompted with; empty: as the model does.
        bfloat16: whether matrices are multiplied in bfloat16.
        float16: the same in float16, with losses scaled so that gradients do not vanish.
        licence: of the finished weights, for their card.
    """

    name: str
    out: Path
    model: str = "tiny"
    weights: Path | None = None
    head: str = ""
    fresh: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    tune: tuple[str, ...] = ()
    data: DataSettings
    held_out: DataSettings | None = None
    augmentation: Augmentation
    shortest_edge: int | None = None
    longest_edge: int | None = None
    views: int | None = None
    cache: Path | None = None
    wrong_data: WrongDataPolicy = field(default_factory=WrongDataPolicy)
    repeat_threshold: float = 0.0
    batch_size: int = 8
    init: Path | None = None
    loss: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    templates: tuple[str, ...] = ()
    licence: str = ""
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool = False
    float16: bool = False
    workers: int = 2


@dataclass(frozen=True)
class Base:
    """What a run begins from: a backbone, the card of its model, and the head's weights if there are any."""

    backbone: ClipBackbone
    card: ModelCard
    head: HeadCard | None
    bundle: Bundle | None

    @property
    def preprocessing(self) -> Preprocessing:
        """Of that model."""
        return Preprocessing.from_dict(self.card.preprocessing)


def train_on_data(recipe: DataRecipe) -> Path:
    """Run the recipe, resuming what its folder holds; returns the bundle, ready to serve."""
    import torch

    from ovperception.text import TextEncoder

    path = recipe.out / f"{recipe.out.name}.safetensors"
    check_recipe(recipe)
    with sitting(recipe) as world:
        images = open_training_images(recipe.data, on_problem=recipe.wrong_data.policy)
        base = open_base(recipe.model, recipe.weights, recipe.out.name, recipe.head)
        if recipe.fresh:
            base = dataclasses.replace(base, head=None)
        backbone = base.backbone.to(world.device)
        head, card = _head(recipe, base, images.classes)
        head.to(world.device).train()
        if world.writes:
            facts = {"vocabulary": images.classes.content_hash, "data": images.digest()}
            describe_data(recipe, facts | {"backbone": backbone.spec.digest, "pictures": len(images)})
            _write_words(recipe.out / "vocabulary.txt", images.classes)
        templates = recipe.templates or base.card.templates
        encoder = TextEncoder(backbone, templates=templates, rule=base.card.template_rule)
        with torch.no_grad():
            text = encoder.classifier(images.classes)
        wrong = WrongData(recipe.wrong_data)
        kind = multiplied_in(bfloat16=recipe.bfloat16, float16=recipe.float16)
        losses = head_losses(head, backbone, text, loss=recipe.loss, dtype=kind)
        source = _source(recipe, world, images, base)
        evaluate = _evaluate(recipe, world, base, losses, images.classes, wrong)
        module = _with_tower(recipe, head, backbone)
        if recipe.tune and evaluate is not None:
            evaluate = partial(_of_head, evaluate)
        with told_at_the_end(wrong, recipe.out, world, images.left_out()):
            shipped = run_head(recipe, module, world, source, losses, evaluate=evaluate, wrong=wrong)
        if world.writes:
            _bundle(recipe, base, head.eval() if recipe.tune else shipped, card, path)
    return path


def open_base(model: str, weights: Path | None, name: str, head: str = "") -> Base:
    """Opens what a recipe begins from.

    Args:
        model: a name or a bundle of ours, or ``open_clip:ARCH/PRETRAINED``.
        weights: of that open_clip architecture, where they are a file.
        name: of the model to be made.
        head: which head to go on with; empty: the first one.
    """
    from ovperception.backbones import load_backbone
    from ovperception.model import Model

    if model.startswith(_OPEN_CLIP):
        backbone = load_backbone(model, weights=weights)
        spec = backbone.spec
        card = ModelCard(
            name=name,
            backbone=BackboneCard(name=model, digest=spec.digest),
            heads=(),
            preprocessing=dict(Preprocessing(mean=_bytes(spec.mean), std=_bytes(spec.std)).to_dict()),
        )
        return Base(backbone, card, None, None)
    bundle = read_bundle(locate(model))
    heads = bundle.card.heads
    found = next((h for h in heads if h.name == (head or heads[0].name)), None)
    return Base(Model.from_bundle(bundle).backbone, bundle.card, found, bundle)


def _bytes(statistics: tuple[float, float, float]) -> tuple[float, float, float]:
    """Of the scale 0 to 1, on the scale 0 to 255."""
    red, green, blue = statistics
    return 255 * red, 255 * green, 255 * blue


def _head(recipe: DataRecipe, base: Base, classes: Vocabulary) -> tuple[nn.Module, HeadCard]:
    """The head to train, begun from the model's where there is such, and what its card will say."""
    from ovperception.plugins import head_factory

    name = recipe.head or (base.card.heads[0].name if base.card.heads else "")
    if not name:
        raise UnknownHead("Which head?", field="head", mend="Say head=fcclip, regionclip or lseg")
    known = dict(base.head.config) if base.head is not None else {}
    settings = known | dict(recipe.settings)
    factory = head_factory(name)
    head: Any = factory.from_settings(settings, base.backbone.spec)
    if "seen_words" in head.config.to_dict():
        # Its own words and those it is taught now: for these the learned branch is trusted more.
        settings["seen_words"] = [*dict.fromkeys((*head.config.seen_words, *classes.texts))]
        head = factory.from_settings(settings, base.backbone.spec)
    if base.head is not None and base.bundle is not None:
        try:
            head.load_state_dict(base.bundle.part(f"head.{name}"))
        except RuntimeError as error:
            raise InvalidParameter(
                f"The {name} head of {recipe.model!r} has other sizes than the recipe's settings",
                field="settings",
                got=str(error).splitlines()[1].strip(),
                mend="Leave those settings out to go on with it, or say fresh=true to begin at random",
            ) from error
    return head, HeadCard(name=name, config=head.config.to_dict())


def _with_tower(recipe: DataRecipe, head: nn.Module, backbone: ClipBackbone) -> nn.Module:
    """What is trained: the head or, with it, stages of the tower; their norms stay as they are."""
    import torch

    if not recipe.tune:
        return head
    known = ("layer4", "attnpool")
    if backbone.spec.family != "resnet" or not set(recipe.tune) <= set(known) or recipe.cache is not None:
        raise InvalidParameter(
            "These stages cannot be trained",
            field="tune",
            expected=f"{' and '.join(known)} of a ModifiedResNet, and no kept features: they hold what the "
            "last stage said before",
            got=f"{', '.join(recipe.tune)} of {backbone.spec.name}",
        )
    visual: Any = backbone.model.visual
    stages = torch.nn.ModuleDict({name: getattr(visual, name) for name in recipe.tune})
    stages.requires_grad_(True)
    for part in stages.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.requires_grad_(False)
    return torch.nn.ModuleDict({"head": head, "tower": stages})


def _of_head(evaluate: Evaluate, module: nn.Module, step: int) -> Mapping[str, float]:
    """An evaluation is of the head; the tower's stages are the backbone's own."""
    parts: Any = module
    return evaluate(parts["head"], step)


def _preprocessing(recipe: DataRecipe, base: Base) -> Preprocessing:
    """Of the finished model."""
    edges = {"shortest_edge": recipe.shortest_edge, "longest_edge": recipe.longest_edge}
    said = {name: edge for name, edge in edges.items() if edge is not None}
    return Preprocessing.from_dict({**base.card.preprocessing, **said})


def _source(recipe: DataRecipe, world: World, images: TrainingImages, base: Base) -> BatchSource[Any]:
    from ovperception.training.epochs import EpochOrder, Order
    from ovperception.training.feature_cache import CachedBatches, cache_key, open_cache
    from ovperception.training.labelled_batches import LabelledBatches, LabelledViews
    from ovperception.training.repeat_factors import RepeatedOrder, repeat_factors

    views = LabelledViews(
        source=images,
        augmentation=recipe.augmentation,
        preprocessing=_preprocessing(recipe, base),
        seed=recipe.seed,
        views=recipe.views,
    )
    share = world.share_of(recipe.batch_size, recipe.loop.accumulate)
    order: Order = EpochOrder(count=len(images), seed=recipe.seed, batch_size=share)
    if recipe.repeat_threshold:
        classes = [images.classes_in(index) for index in range(len(images))]
        factors = repeat_factors(classes, recipe.repeat_threshold)
        order = RepeatedOrder(factors=factors, seed=recipe.seed, batch_size=share)
    if recipe.cache is None:
        return LabelledBatches(views=views, order=order)
    kept = open_cache(recipe.cache)
    key = cache_key(
        views,
        base.backbone,
        dtype=kept.key.dtype,
        stages=kept.key.stages,
        bfloat16=recipe.bfloat16,
        float16=recipe.float16,
    )
    kept.key.require(key, recipe.cache)
    return CachedBatches(kept, order)


def _evaluate(
    recipe: DataRecipe, world: World, base: Base, losses: Any, classes: Vocabulary, wrong: WrongData
) -> Evaluate | None:
    settings = recipe.loop.evaluation
    if not settings.every:
        return None
    if settings.by:
        return evaluator(settings.by, recipe, base.backbone)
    if recipe.held_out is None:
        raise InvalidParameter(
            "Evaluation needs data that is not trained on",
            field="held_out",
            expected="settings such as those of `data`",
            mend="Give held_out.annotations and held_out.images, or evaluation.every=0",
        )
    # The same classes in the same order, whatever the held-out file lists.
    opened = open_training_images(recipe.held_out, on_problem=recipe.wrong_data.policy)
    images = dataclasses.replace(opened, vocabulary=classes)
    still = dataclasses.replace(recipe.augmentation, flip=0.0, colour=None)
    plain = dataclasses.replace(recipe, augmentation=still, cache=None, views=1, repeat_threshold=0.0)
    source = _source(plain, world, images, base)
    share = world.share_of(recipe.batch_size, recipe.loop.accumulate)
    batches = -(-(settings.images or len(images)) // share)
    return held_out_losses(losses, source, batches=batches, wrong=wrong)


def _write_words(path: Path, classes: Vocabulary) -> None:
    """The classes as a list that `ovp predict --vocabulary` reads."""
    path.write_text("".join(f"{'|'.join(c.synonyms)}\n" for c in classes.classes), encoding="utf-8")


def _bundle(recipe: DataRecipe, base: Base, head: nn.Module, card: HeadCard, path: Path) -> Path:
    """Backbone and head as one file; a backbone that the model borrows stays borrowed."""
    tensors: dict[str, Tensor] = {f"head.{card.name}.{k}": v for k, v in head.state_dict().items()}
    described = base.card.backbone
    if recipe.tune:
        base.backbone.load_state_dict(base.backbone.state_dict())  # so that it forgets its old digest
        if described.lender:
            described = read_card(locate(described.lender)).backbone
        digest = base.backbone.spec.digest
        described = BackboneCard(name=described.name, config=described.config, digest=digest)
    if base.bundle is not None and not recipe.tune:
        tensors |= {k: v for k, v in base.bundle.tensors.items() if k.startswith("backbone.")}
    else:
        tensors |= {f"backbone.{k}": v for k, v in base.backbone.model.state_dict().items()}
    whole = base.card.model_copy(
        update={
            "name": recipe.out.name,
            "version": "1",
            "summary": f"{card.name} on {base.card.backbone.name}, trained by the recipe {recipe.name}.",
            "backbone": described,
            "heads": (card,),
            "preprocessing": dict(_preprocessing(recipe, base).to_dict()),
            "templates": recipe.templates or base.card.templates,
            "vocabulary": "",
            "licence": recipe.licence or base.card.licence,
            "source": f"`ovp train` {recipe.name}, from {recipe.model}",
            "scores": {},
            "verified": (),
        }
    )
    return write_bundle(path, whole, tensors)
