"""An exponential moving average of the weights, for evaluation and for the finished model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["MovingAverage"]


class MovingAverage:
    """Averaged copies of a module's trained parameters; statistics of norms are taken as they are.

    Args:
        module: whose weights are averaged.
        decay: share of the average that one step keeps, once it is warm: update n keeps at most
            (1 + n) / (10 + n), so that the random start is soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise InvalidParameter(
                "The decay of the average must lie between 0 and 1", field="ema", got=decay
            )
        self.decay = decay
        self.updates = 0
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        live = [p.detach() for p in self._live.values()]
        torch._foreach_lerp_([*self.weights.values()], live, 1 - decay)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Give the module the averaged weights for good."""
        for name, parameter in self._live.items():
            parameter.copy_(self.weights[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averaged weights inside the block, and its own again after it."""
        own = {name: p.detach().clone() for name, p in self._live.items()}
        self.copy_to_module()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._live.items():
                    parameter.copy_(own[name])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            KeyError: it is of another module.
        """
        for name, weight in self.weights.items():
            weight.copy_(state["weights"][name])
        self.updates = int(state["updates"])
