"""Training any head on a frozen backbone: the head knows its loss, the loop knows the rest."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ovperception.bundle import BackboneCard, HeadCard, ModelCard, read_bundle, write_bundle
from ovperception.catalogue import locate
from ovperception.errors import InvalidCheckpoint, InvalidParameter, MissingFile, Unsupported
from ovperception.preprocess import Preprocessing
from ovperception.training.batches import BatchSource
from ovperception.training.checkpoint import load_checkpoint
from ovperception.training.distributed import World
from ovperception.training.evaluation import Evaluate, evaluator
from ovperception.training.held_out import held_out_losses
from ovperception.training.loop import Losses, TrainingRun
from ovperception.training.loop_settings import LoopSettings
from ovperception.training.loss_scale import multiplied_in
from ovperception.training.parameters import OptimizerSettings, make_optimizer
from ovperception.training.recipe_files import merge
from ovperception.training.run_folder import describe_data, sitting
from ovperception.training.schedule import Schedule
from ovperception.training.sharding import Shards

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ovperception.backbones.clip import ClipBackbone
    from ovperception.text import TextClassifier
    from ovperception.training.wrong_data import WrongData

__all__ = ["HeadRecipe", "bundle_head", "head_losses", "load_trained_clip", "run_head", "train_head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRecipe:
    """Everything that makes a head's run what it is.

    Attributes:
        name: of the recipe.
        out: folder of the run.
        backbone: weights of the frozen CLIP (`ovp train tiny-clip` writes them).
        config: open_clip configuration of that CLIP.
        borrow: name of a model whose bundle holds that CLIP already: the bundle of this head refers to it
            instead of holding it again. Empty: it holds it.
        head: name of the head, as `ovp models` and the entry points spell it.
        settings: the head's own; facts of the backbone are filled in.
        preprocessing: of training scenes, which come at the size they are drawn at.
        shortest_edge: to which the finished model resizes pictures besides; None: as `preprocessing` says.
        batch_size: scenes in a step.
        size: (height, width) of the training scenes in pixels.
        objects: fewest and most things in a scene.
        large_share: share of the steps that see scenes of twice the side, a quarter as many.
        enlarged: largest factor by which scenes are drawn smaller and then enlarged.
        init: state of another run to begin from, or None.
        loss: fields of the head's `loss_settings`.
        schedule: learning rate and length.
        optimizer: which one.
        loop: how the loop goes about it.
        bfloat16: whether matrices are multiplied in bfloat16.
        float16: the same in float16, with losses scaled so that gradients do not vanish.
    """

    name: str
    out: Path
    backbone: Path
    config: Mapping[str, Any]
    borrow: str = ""
    head: str = "fcclip"
    settings: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Preprocessing
    shortest_edge: int | None = None
    batch_size: int = 8
    size: tuple[int, int] = (256, 256)
    objects: tuple[int, int] = (2, 7)
    large_share: float = 0.3
    enlarged: float = 1.0
    init: Path | None = None
    loss: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    templates: tuple[str, ...] = ("a photo of a {}.",)
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool = False
    float16: bool = False
    workers: int = 1


def _state(path: Path) -> dict[str, Tensor]:
    """The head of a run's ``last.pt`` or ``best.pt``, or of a bundle."""
    if path.suffix == ".safetensors":
        bundle = read_bundle(path)
        return {k: v.float() for k, v in bundle.part(f"head.{bundle.card.heads[0].name}").items()}
    state: dict[str, Tensor] = load_checkpoint(path)["module"]
    return state


def load_trained_clip(weights: Path, config: Mapping[str, Any], name: str) -> ClipBackbone:
    """A frozen backbone of a configuration of ours and the weights trained for it.

    Raises:
        MissingFile: the weights were not trained yet.
        InvalidCheckpoint: they are of another configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ovperception.backbones import build_open_clip, from_open_clip

    if not weights.is_file():
        raise MissingFile(
            f"No CLIP weights at {weights}",
            mend="Run the recipe that makes them first (`ovp train tiny-clip`, `ovp train tiny-clip-scenes`)",
        )
    model, tokenizer = build_open_clip(dict(config))
    try:
        model.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        raise InvalidCheckpoint(f"{weights} does not fit the recipe's CLIP", got=error) from error
    return from_open_clip(model, name, tokenizer=tokenizer, config=dict(config))


def train_head(recipe: HeadRecipe) -> nn.Module:
    """Run the recipe, resuming what its folder holds; returns the trained head."""
    import torch

    from ovperception.datasets.scenes.vocabulary import scenes_vocabulary
    from ovperception.plugins import head_factory
    from ovperception.text import TextEncoder

    with sitting(recipe) as world:
        backbone = load_trained_clip(recipe.backbone, recipe.config, "tiny").to(world.device)
        head = head_factory(recipe.head).from_settings(recipe.settings, backbone.spec).to(world.device)
        vocabulary = scenes_vocabulary("base")
        if world.writes:
            describe_data(recipe, {"vocabulary": vocabulary.content_hash, "backbone": backbone.spec.digest})
        encoder = TextEncoder(backbone, templates=recipe.templates)
        with torch.no_grad():
            text = encoder.classifier(vocabulary)
        kind = multiplied_in(bfloat16=recipe.bfloat16, float16=recipe.float16)
        losses = head_losses(head, backbone, text, loss=recipe.loss, dtype=kind)
        source, held_out = _scenes(recipe, world, "train"), _scenes(recipe, world, "val")
        chosen = _evaluate(recipe, backbone, losses, held_out)
        shipped = run_head(recipe, head, world, source, losses, evaluate=chosen)
    return shipped.eval()


def head_losses(
    head: Any,
    backbone: ClipBackbone,
    text: TextClassifier,
    *,
    loss: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> Losses:
    """The losses of a head on frozen features, as the loop takes them.

    Args:
        head: knows its own loss.
        backbone: frozen.
        text: the training vocabulary.
        loss: fields of the head's ``loss_settings`` to change.
        dtype: matrices are multiplied in, ``torch.bfloat16`` or ``torch.float16``; None: float32.

    Raises:
        Unsupported: the head has no loss of its own.
        InvalidParameter: a field that its loss does not have, or a value of another type.
    """
    import torch

    from ovperception.training.feature_cache import features_of
    from ovperception.training.targets import TrainableHead

    if not isinstance(head, TrainableHead):
        raise Unsupported(f"{type(head).__name__} has no loss of its own", field="head")
    trainable: Any = head
    trainable.loss_settings = merge(trainable.loss_settings, loss, "loss.")
    device = backbone.device

    def losses(batch: Any) -> Mapping[str, Tensor]:
        targets = batch[1] if isinstance(batch, tuple) else batch.targets
        moved = [target.to(device, non_blocking=True) for target in targets]
        with torch.autocast(device.type, dtype, enabled=dtype not in (None, torch.float32)):
            features = features_of(batch, backbone)
            found: Mapping[str, Tensor] = trainable.losses(backbone, features, moved, text)
        return found

    return losses


def run_head(
    recipe: Any,
    head: nn.Module,
    world: World,
    source: BatchSource[Any],
    losses: Losses,
    *,
    evaluate: Evaluate | None,
    wrong: WrongData | None = None,
) -> nn.Module:
    """Train a head, or go on with what the folder holds; returns the head with the weights to ship.

    It is the same head, or a copy of it where its weights were spread over the processes.

    Args:
        recipe: with ``out``, ``optimizer``, ``schedule``, ``loop``, ``init`` and ``workers``.
        head: what is trained.
        world: the processes that share the run.
        source: batches by number.
        losses: of a batch.
        evaluate: evaluation during training, or None.
        wrong: counts what batches of files left out, and may end the run.
    """
    shards, shipped = None, head
    if recipe.loop.sharded and world.size > 1:
        shipped = copy.deepcopy(head)
        shards = Shards(head, world)
    run = TrainingRun(
        folder=recipe.out,
        module=head,
        optimizer=make_optimizer(head, recipe.optimizer, recipe.schedule.learning_rate),
        schedule=recipe.schedule,
        settings=recipe.loop,
        world=world,
        evaluate=evaluate,
        shards=shards,
        float16=recipe.float16,
        wrong=wrong,
    )
    if not (recipe.out / "last.pt").is_file() and recipe.init is not None:
        run.begin_from(_state(recipe.init))
    run.resume()
    run.run(source, losses, workers=recipe.workers)
    run.settle()
    if shards is not None:
        shipped.load_state_dict(shards.whole(head.state_dict()))
    return shipped


def _scenes(recipe: HeadRecipe, world: World, split: Literal["train", "val"]) -> BatchSource[Any]:
    from ovperception.training.scene_targets import SceneBatches

    return SceneBatches(
        preprocessing=recipe.preprocessing,
        batch_size=world.share_of(recipe.batch_size, recipe.loop.accumulate),
        size=recipe.size,
        objects=recipe.objects,
        large_share=recipe.large_share,
        enlarged=recipe.enlarged,
        split=split,
    )


def _evaluate(
    recipe: HeadRecipe, backbone: ClipBackbone, losses: Losses, held_out: BatchSource[Any]
) -> Evaluate | None:
    settings = recipe.loop.evaluation
    if not settings.every:
        return None
    if settings.by:
        return evaluator(settings.by, recipe, backbone)
    images = settings.images or 64
    return held_out_losses(losses, held_out, batches=-(-images // recipe.batch_size))


def bundle_head(recipe: HeadRecipe, head: Any, path: Path, card: Mapping[str, Any]) -> Path:
    """Write backbone and head as one bundle, weights in half precision.

    Args:
        recipe: what made the head.
        head: the trained head; its ``config`` is kept on the card.
        path: where to.
        card: further fields of the `ModelCard`.

    Raises:
        InvalidParameter: the model to borrow from has another backbone.
    """
    backbone = load_trained_clip(recipe.backbone, recipe.config, "tiny")
    weights = {k: _half(v) for k, v in backbone.model.state_dict().items()}
    tensors = {f"head.{recipe.head}.{k}": _half(v) for k, v in head.state_dict().items()}
    if recipe.borrow:
        described = _borrowed(recipe.borrow, weights)
    else:
        described = BackboneCard(name="open_clip:tiny", config=dict(recipe.config))
        tensors |= {f"backbone.{k}": v for k, v in weights.items()}
    preprocessing = recipe.preprocessing
    if recipe.shortest_edge is not None:
        preprocessing = dataclasses.replace(preprocessing, shortest_edge=recipe.shortest_edge)
    whole = ModelCard(
        backbone=described,
        heads=(HeadCard(name=recipe.head, config=head.config.to_dict()),),
        preprocessing=dict(preprocessing.to_dict()),
        templates=recipe.templates,
        **dict(card),
    )
    return write_bundle(path, whole, tensors)


def _borrowed(lender: str, weights: Mapping[str, Tensor]) -> BackboneCard:
    from ovperception.model import Model

    bundle = read_bundle(locate(lender))
    theirs = bundle.part("backbone")
    if theirs.keys() != weights.keys() or any(not v.equal(theirs[k]) for k, v in weights.items()):
        raise InvalidParameter(
            f"{lender!r} does not hold the backbone that the head was trained on",
            field="borrow",
            mend="Make the bundle of that model from the same CLIP first, or leave `borrow` out",
        )
    return BackboneCard.lent_by(lender, Model.from_bundle(bundle).spec.digest)


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() and tensor.ndim else tensor
