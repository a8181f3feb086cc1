"""What a run would refuse at once, found before it begins and by a dry run: names that nothing has.

Files are not looked for: an earlier recipe may make them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ovperception.catalogue import entries, locate
from ovperception.datasets.named import named_dataset
from ovperception.errors import InvalidParameter, UnknownHead, Unsupported
from ovperception.plugins import head_factory, head_names
from ovperception.training.data_settings import DataSettings, read_vocabulary
from ovperception.training.evaluation import evaluator_factory
from ovperception.training.loss_scale import multiplied_in

__all__ = ["check_recipe"]

_OPEN_CLIP = "open_clip:"


def check_recipe(recipe: Any) -> None:
    """Refuse names that nothing has and settings that exclude each other.

    Args:
        recipe: the settings of any recipe; what it does not have is not looked at.

    Raises:
        NotFound, InvalidParameter, Unsupported: as the run would.
    """
    _check_head(getattr(recipe, "head", None), getattr(recipe, "model", ""))
    for field in ("model", "borrow", "proposer"):
        _check_model(getattr(recipe, field, ""))
    for field in ("data", "held_out"):
        data = getattr(recipe, field, None)
        if isinstance(data, DataSettings):
            _check_data(data, field)
    _check_vocabulary(getattr(recipe, "concepts", ""))
    by = getattr(getattr(getattr(recipe, "loop", None), "evaluation", None), "by", "")
    if by:
        evaluator_factory(by)
    multiplied_in(bfloat16=getattr(recipe, "bfloat16", False), float16=getattr(recipe, "float16", False))
    if getattr(recipe, "tune", ()) and recipe.loop.sharded:
        raise Unsupported(
            "Stages of the tower are not spread over processes",
            field="loop.sharded",
            mend="Leave it out, or train the head alone (tune=[])",
        )


def _check_head(head: str | None, model: str) -> None:
    if head and head not in head_names():
        head_factory(head)  # says which there are
    if head == "" and model.startswith(_OPEN_CLIP):
        raise UnknownHead("Which head?", field="head", mend=f"Say head={', '.join(head_names())}")


def _check_model(name: str) -> None:
    if name.startswith(_OPEN_CLIP):
        from ovperception.backbones.loading import check_backbone_name

        check_backbone_name(name)
    elif name and name not in entries() and os.sep not in name and not Path(name).suffix:
        locate(name)


def _check_data(data: DataSettings, field: str) -> None:
    if data.name:
        splits = named_dataset(data.name).splits
        if data.split and data.split not in splits:
            raise InvalidParameter(
                f"{data.name} has no such split",
                field=f"{field}.split",
                expected=f"one of {', '.join(splits)}",
                got=data.split,
            )
    _check_vocabulary(data.vocabulary)


def _check_vocabulary(words: str) -> None:
    if words and not Path(words).suffix:
        read_vocabulary(words)
