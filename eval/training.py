"""Evaluation while a head is trained: entry points of the group ``ovperception.training_evaluators``.

``evaluation.by=scenes`` measures on scenes of the val split, ``evaluation.by=coco`` on the file that
``held_out`` names. Either gives the metrics of every protocol that the head can carry, under their own names:
``evaluation.metric=AP50_novel`` or ``PQ`` or ``mIoU``, with ``evaluation.higher=true``.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.protocols import EvaluationProtocol, protocol
from eval.running.asking import LocalAsker
from eval.running.job import Job, protocol_of_data
from eval.running.run import run
from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from torch import nn

    from ovperception.backbones.clip import ClipBackbone
    from ovperception.model import Model
    from ovperception.training.evaluation import Evaluate

__all__ = ["coco_evaluator", "scenes_evaluator"]

_SCENES = ("scenes_ov_coco", "scenes_panoptic", "scenes_semantic")
_IMAGES = 50


def scenes_evaluator(recipe: Any, backbone: ClipBackbone) -> Evaluate:
    """Measures on scenes, as many as ``evaluation.images`` says, 50 if it does not.

    Args:
        recipe: of the head; its name, preprocessing, templates and size are taken.
        backbone: frozen.
    """
    rows = [protocol(name) for name in _SCENES]
    settings = {"data": "scenes", "size": getattr(recipe, "size", 512)}
    return _evaluate(recipe, backbone, rows, settings, recipe.loop.evaluation.images or _IMAGES)


def coco_evaluator(recipe: Any, backbone: ClipBackbone) -> Evaluate:
    """Measures on a COCO-format file, that of ``held_out``, with its own classes.

    Args:
        recipe: of the head.
        backbone: frozen.

    Raises:
        InvalidParameter: the recipe names no such file.
    """
    held_out = getattr(recipe, "held_out", None)
    if held_out is None or held_out.annotations is None or held_out.images is None:
        raise InvalidParameter(
            "There is no file to evaluate on",
            field="held_out",
            expected="held_out.annotations and held_out.images",
            mend="Give them, or name another evaluator as evaluation.by",
        )
    path = str(held_out.annotations)
    settings = {"data": path, "root": held_out.images}
    return _evaluate(
        recipe, backbone, [protocol_of_data(path)], settings, recipe.loop.evaluation.images or None
    )


def _evaluate(
    recipe: Any,
    backbone: ClipBackbone,
    rows: Sequence[EvaluationProtocol],
    settings: Mapping[str, Any],
    images: int | None,
) -> Evaluate:
    def evaluate(module: nn.Module, step: int) -> Mapping[str, float]:
        able = [row for row in rows if row.task in getattr(module, "tasks", ())]
        if not able:
            raise InvalidParameter(
                "This evaluator asks nothing that the head can answer",
                field="evaluation.by",
                expected=" or ".join(sorted({row.task for row in rows})),
                got=", ".join(sorted(getattr(module, "tasks", ()))),
            )
        model = _model(recipe, backbone, module)
        with tempfile.TemporaryDirectory(prefix="ovp-eval-") as folder:
            jobs = [
                Job(
                    model=recipe.name,
                    protocol=row,
                    out=Path(folder) / row.name,
                    limit=images,
                    **settings,
                )
                for row in able
            ]
            outcomes = run(jobs, asker=LocalAsker(model, jobs[0]), alone=True)
        return {
            name: value
            for outcome in outcomes
            for name, value in outcome.metrics.items()
            if value is not None
        }

    return evaluate


def _model(recipe: Any, backbone: ClipBackbone, module: nn.Module) -> Model:
    """The head on its backbone as it would be shipped, without a copy of either."""
    from ovperception.bundle import BackboneCard, HeadCard, ModelCard
    from ovperception.model import Model

    card, preprocessing = _card_of(recipe)
    own = ModelCard(
        name=recipe.name,
        backbone=BackboneCard(name=backbone.spec.name),
        heads=(HeadCard(name=recipe.head or "head", config={}),),
        preprocessing=dict(preprocessing.to_dict()),
        templates=recipe.templates or (card.templates if card else "vild_14"),
        defaults=card.defaults if card else {},
        background=card.background if card else "",
    )
    modes = {part: part.requires_grad for part in module.parameters()}
    model = Model(own, backbone, {recipe.head or "head": module}, preprocessing)
    for part, wanted in modes.items():  # `Model` freezes what it is given, and this one learns on
        part.requires_grad_(wanted)
    return model


def _card_of(recipe: Any) -> tuple[Any, Any]:
    """The card of the model the recipe begins from, if any, and how pictures become input."""
    from ovperception.bundle import read_bundle
    from ovperception.catalogue import locate
    from ovperception.preprocess import Preprocessing

    if hasattr(recipe, "preprocessing"):
        preprocessing = recipe.preprocessing
        card = None
    else:
        card = read_bundle(locate(recipe.model)).card
        preprocessing = Preprocessing.from_dict(card.preprocessing)
    edges = {name: getattr(recipe, name, None) for name in ("shortest_edge", "longest_edge")}
    said = {name: edge for name, edge in edges.items() if edge is not None}
    return card, dataclasses.replace(preprocessing, **said)
