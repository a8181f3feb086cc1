"""Looking several times, chosen when a model is used: the words of ``--views``, and a head that takes them.

A bundle says it of a head for good (`ovperception.sliding.Views`); this says it of a loaded model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from ovperception.errors import InvalidParameter, Unsupported

if TYPE_CHECKING:
    from ovperception.head import Task
    from ovperception.model import Model
    from ovperception.sliding import Views

__all__ = ["VIEWS_HELP", "set_views", "views_of"]

_EXAMPLE = "base=520 crop=480 scales=0.75,1,1.25 flip=true"
VIEWS_HELP = f'Look several times, if the head can: "{_EXAMPLE}".'


def views_of(text: str) -> Views:
    """The views that a text such as ``base=520 crop=480 scales=0.75,1 flip=true`` spells.

    The names are those of `Views`, which are those of a bundle's model card.

    Raises:
        InvalidParameter: a name is not known or missing, or a value is none of it.
    """
    from ovperception.sliding import Views

    values: dict[str, Any] = {}
    for part in text.split():
        name, _, value = part.partition("=")
        read = _READERS.get(name)
        try:
            if read is None or name in values:
                raise ValueError(name)
            values[name] = read(value)
        except (ValueError, ZeroDivisionError, KeyError) as error:
            raise InvalidParameter(
                "The views are not described",
                field="views",
                expected=f"{', '.join(_READERS)}, each once, as in {_EXAMPLE!r}",
                got=part,
            ) from error
    return Views.from_dict(values)


def _number(text: str) -> float:
    return float(Fraction(text))


_READERS: Mapping[str, Callable[[str], object]] = {
    "base": int,
    "crop": int,
    "scales": lambda text: tuple(_number(part) for part in text.split(",")),
    "flip": lambda text: {"true": True, "false": False}[text],
    "overlap": _number,
    "pad_value": _number,
    "max_cells": int,
}


def set_views(model: Model, task: Task, views: Views) -> None:
    """Let the head of a task look so from now on; what the bundle says of it no longer counts.

    Nothing is padded for the network then, because views look at all there is.

    Raises:
        Unsupported: the head looks once, whatever it is told.
    """
    name, head = model.head_for(task)
    config = getattr(head, "config", None)
    if not hasattr(config, "views"):
        raise Unsupported(
            f"The head {name!r} of {model.name!r} does not look several times",
            field="views",
            expected="a model whose maps are LSeg's",
            mend="Leave the views out",
        )
    cast("Any", head).config = dataclasses.replace(cast("Any", config), views=views)
    model.preprocessing = dataclasses.replace(model.preprocessing, multiple=1)
