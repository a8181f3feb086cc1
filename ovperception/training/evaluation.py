"""Evaluation during training: when, what came of it, which state was best, and when enough is enough.

What evaluates is a callable, ``evaluate(module, step) -> metrics``. The real evaluators live a floor above;
they are found by an entry point of the group ``ovperception.training_evaluators``, a factory that takes what
`EvaluatorFactory` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

from ovperception.errors import InvalidParameter
from ovperception.training.checkpoint import random_state, restore_random_state
from ovperception.training.loop_settings import EvaluationSettings

if TYPE_CHECKING:
    from torch import nn

    from ovperception.backbones.clip import ClipBackbone

__all__ = ["Best", "Evaluate", "EvaluatorFactory", "evaluator", "evaluator_factory", "undisturbed"]

GROUP = "ovperception.training_evaluators"

Evaluate = Callable[["nn.Module", int], Mapping[str, float]]
"""A module in evaluation mode and the step it stands at, to numbers by name."""


class EvaluatorFactory(Protocol):
    """What an entry point of the group names."""

    def __call__(self, recipe: Any, backbone: ClipBackbone) -> Evaluate:
        """Make the evaluator of a recipe's head on its frozen backbone."""
        ...


def evaluator(name: str, recipe: Any, backbone: ClipBackbone) -> Evaluate:
    """The evaluator of this name, made for a recipe.

    Raises:
        InvalidParameter: no installed package provides it.
    """
    return evaluator_factory(name)(recipe, backbone)


def evaluator_factory(name: str) -> EvaluatorFactory:
    """What makes the evaluators of this name.

    Raises:
        InvalidParameter: no installed package provides it.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise InvalidParameter(
            f"No evaluator is called {name!r}",
            field="evaluation.by",
            expected=" or ".join(sorted(points)) or "a package that provides one",
            got=name,
            mend="Leave it empty to be judged by the losses on held-out batches",
        )
    return cast("EvaluatorFactory", points[name].load())


class Best:
    """The best value of the metric so far; its state travels in the checkpoint."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self.settings = settings
        self.value: float | None = None
        self.step = 0
        self.since = 0

    def take(self, metrics: Mapping[str, float], step: int) -> bool:
        """Whether these are better than any before.

        Raises:
            InvalidParameter: the metric is not among them.
        """
        name = self.settings.metric
        if name not in metrics:
            raise InvalidParameter(
                f"The evaluator gives no {name!r}",
                field="evaluation.metric",
                expected=" or ".join(sorted(metrics)),
                got=name,
            )
        value = float(metrics[name])
        sign = 1 if self.settings.higher else -1
        better = math.isfinite(value) and (self.value is None or sign * value > sign * self.value)
        if better:
            self.value, self.step, self.since = value, step, 0
        else:
            self.since += 1
        return better

    @property
    def exhausted(self) -> bool:
        """Whether the patience is used up."""
        return 0 < self.settings.patience <= self.since

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"value": self.value, "step": self.step, "since": self.since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.value, self.step, self.since = state["value"], int(state["step"]), int(state["since"])


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, and generators that do not notice: training goes on as it would have."""
    modes = {part: part.training for part in module.modules()}
    state = random_state()
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training
        restore_random_state(state)
