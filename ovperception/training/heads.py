"""Training any head on a frozen backbone: the head knows its loss, the loop knows the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ovperception.bundle import BackboneCard, HeadCard, ModelCard, read_bundle, write_bundle
from ovperception.catalogue import locate
from ovperception.errors import InvalidCheckpoint, InvalidParameter, MissingFile, Unsupported
from ovperception.preprocess import Preprocessing
from ovperception.training.loop import Schedule, TrainingRun, parameter_groups

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovperception.backbones.clip import ClipBackbone

__all__ = ["HeadRecipe", "load_trained_clip", "train_head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRecipe:
    """Everything that makes a head's run what it is.

    Attributes:
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
    """

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
    weight_decay: float = 0.05
    clip_norm: float = 0.5
    templates: tuple[str, ...] = ("a photo of a {}.",)
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool = False
    workers: int = 1


def _state(path: Path) -> dict[str, Tensor]:
    """The head of a run's ``last.pt``, or of a bundle."""
    import torch

    if path.suffix == ".safetensors":
        bundle = read_bundle(path)
        return {k: v.float() for k, v in bundle.part(f"head.{bundle.card.heads[0].name}").items()}
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["module"]
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

    from ovperception.plugins import head_factory
    from ovperception.training.targets import TrainableHead

    torch.manual_seed(recipe.seed)
    torch.set_flush_denormal(True)
    backbone = load_trained_clip(recipe.backbone, recipe.config, "tiny").to(recipe.device)
    head = head_factory(recipe.head).from_settings(recipe.settings, backbone.spec).to(recipe.device)
    if not isinstance(head, TrainableHead):
        raise Unsupported(f"The head {recipe.head!r} has no loss of its own", field="head", got=recipe.head)
    head.loss_settings = dataclasses.replace(head.loss_settings, **recipe.loss)
    groups = parameter_groups(head, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.schedule.learning_rate)
    run = TrainingRun(folder=recipe.out, module=head, optimizer=optimizer, schedule=recipe.schedule)
    if not run.resume() and recipe.init is not None:
        head.load_state_dict(_state(recipe.init))
    run.run(_losses(recipe, run, head, backbone), clip_norm=recipe.clip_norm)
    return cast("nn.Module", head.eval())


def _losses(
    recipe: HeadRecipe, run: TrainingRun, head: Any, backbone: ClipBackbone
) -> Iterator[dict[str, Tensor]]:
    import torch
    from torch.utils.data import DataLoader

    from ovperception.datasets.scenes.vocabulary import scenes_vocabulary
    from ovperception.text import TextEncoder
    from ovperception.training.scene_targets import SceneBatches

    encoder = TextEncoder(backbone, templates=recipe.templates)
    with torch.no_grad():
        text = encoder.classifier(scenes_vocabulary("base"))
    batches = SceneBatches(
        preprocessing=recipe.preprocessing,
        batch_size=recipe.batch_size,
        size=recipe.size,
        objects=recipe.objects,
        large_share=recipe.large_share,
        enlarged=recipe.enlarged,
        first=run.step,
        count=recipe.schedule.steps - run.step,
    )
    loader: DataLoader[Any] = DataLoader(
        batches,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
    )
    kind = recipe.device.split(":")[0]
    for images, targets in loader:
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=recipe.bfloat16):
            features = backbone.features(images.to(recipe.device))
        moved = [target.to(recipe.device) for target in targets]
        with torch.autocast(kind, torch.bfloat16, enabled=recipe.bfloat16):
            yield head.losses(backbone, features, moved, text)


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
