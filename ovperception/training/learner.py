"""What a step changes: the weights, their average, and what optimizer, clipping and loss scale remember."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from ovperception.errors import Unsupported
from ovperception.training.ema import MovingAverage
from ovperception.training.gradients import ClipPolicy, clip_policy
from ovperception.training.loss_scale import LossScale
from ovperception.training.parameters import NormStatistics
from ovperception.training.sharding import Shards, shared_out, shared_out_optimizer
from ovperception.training.step_counts import counted

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovperception.training.distributed import ParallelLosses, World
    from ovperception.training.loop_settings import LoopSettings

__all__ = ["Learner", "Losses"]

Losses = Callable[[Any], Mapping[str, "Tensor"]]
"""A batch to named, weighted losses, with gradients; their sum is minimised."""


class Learner:
    """A module that learns step by step, in one process or as one of several.

    Args:
        module: what is trained.
        optimizer: of its parameters.
        settings: clipping, accumulation and average.
        world: the processes that share the run.
        shards: of the module, where its weights are spread over the processes.
        float16: whether the losses come of float16 products, so that they have to be scaled.

    Raises:
        Unsupported: weights are to be spread, and are not.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: LoopSettings,
        world: World,
        *,
        shards: Shards | None = None,
        float16: bool = False,
    ) -> None:
        if settings.sharded and world.size > 1 and shards is None:
            raise Unsupported(
                "What this recipe trains cannot be spread over processes",
                field="loop.sharded",
                mend="Leave it out: each process holds the whole",
            )
        self.module = module
        self.optimizer = optimizer
        self.scale = LossScale(enabled=float16)
        self._world = world
        self._shards = shards
        self._decay = settings.ema
        self._average = MovingAverage(module, settings.ema) if settings.ema else None
        self._clip: ClipPolicy = clip_policy(settings.clip)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._statistics = NormStatistics(module)

    def set_rate(self, rate: float) -> None:
        """Learn at this rate; groups with a factor of their own at so much of it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)

    def gradients(self, losses: ParallelLosses, parts: Sequence[Any]) -> dict[str, Tensor]:
        """Gradients of the mean over the parts of a step; returns the means of their named losses."""
        self._statistics.keep()
        self.optimizer.zero_grad(set_to_none=True)
        means: dict[str, Tensor] = {}
        with counted(parts, self._world):
            for number, part in enumerate(parts, start=1):
                with losses.apart() if number < len(parts) else nullcontext():
                    named = losses(part)
                    self.scale.scaled(torch.stack([*named.values()]).sum() / len(parts)).backward()
                for name, value in named.items():
                    share = value.detach().float() / len(parts)
                    means[name] = means[name] + share if name in means else share
        return means

    def clip(self) -> Tensor:
        """Bring the gradients to their size, then clip them; returns the norm before, a scalar."""
        self.scale.unscale(self._parameters)
        return self._clip(self._parameters)

    def update(self) -> None:
        """Take the step that the gradients say."""
        self.optimizer.step()
        if self._average is not None:
            self._average.update()

    def forget(self) -> None:
        """Undo what a step did that is left out."""
        self._statistics.restore()
        self.optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the module has the averaged weights, if there are such."""
        with nullcontext() if self._average is None else self._average.applied():
            yield

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside the block the module can be run by one process alone."""
        with nullcontext() if self._shards is None else self._shards.gathered():
            yield

    def settle_on_average(self) -> None:
        """Give the module the averaged weights for good, if there are such."""
        if self._average is not None:
            self._average.copy_to_module()

    def weights(self) -> Mapping[str, Any]:
        """Whole weights, for the process that writes; every process calls it."""
        return self._whole(self.module.state_dict())

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Take whole weights, of which this process may hold a share."""
        self.module.load_state_dict(shared_out(weights, self.module.state_dict()))

    def begin_from(self, weights: Mapping[str, Any]) -> None:
        """Take whole weights before the first step; the average begins from them too."""
        self.load_weights(weights)
        self._restart_average()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, for the process that writes; every process calls it."""
        found: dict[str, Any] = {"module": self.weights()}
        if self._shards is None:
            found["optimizer"] = self.optimizer.state_dict()
        else:
            found["optimizer"] = self._shards.whole_optimizer(self.optimizer, keep=self._world.writes)
        found |= {"clip": self._clip.state_dict(), "loss_scale": self.scale.state_dict()}
        if self._average is not None:
            average = self._average.state_dict()
            found["average"] = average | {"weights": self._whole(average["weights"])}
        return found

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; version 0.1 kept nothing but weights and optimizer."""
        self.load_weights(state["module"])
        self.optimizer.load_state_dict(dict(shared_out_optimizer(state["optimizer"], self.optimizer)))
        if self._average is not None and "average" in state:
            self._average.load_state_dict(shared_out(state["average"], self._average.state_dict()))
        else:
            self._restart_average()
        self._clip.load_state_dict(state.get("clip", {}))
        self.scale.load_state_dict(state.get("loss_scale", {}))

    def _whole(self, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        return weights if self._shards is None else self._shards.whole(weights, keep=self._world.writes)

    def _restart_average(self) -> None:
        if self._average is not None:
            self._average = MovingAverage(self.module, self._decay)
