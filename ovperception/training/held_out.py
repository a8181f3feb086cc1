"""The plainest evaluation: the losses on batches that are never trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ovperception.training.batches import BatchSource
from ovperception.training.evaluation import Evaluate

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovperception.training.loop import Losses
    from ovperception.training.wrong_data import WrongData

__all__ = ["held_out_losses"]


def held_out_losses(
    losses: Losses, source: BatchSource[Any], *, batches: int, wrong: WrongData | None = None
) -> Evaluate:
    """An evaluation by the mean of the losses, named as they are, and ``loss``, their sum.

    Args:
        losses: of a batch, as in training.
        source: held-out batches by number.
        batches: how many of them.
        wrong: counts what they left out, and may end the run.
    """

    def evaluate(module: nn.Module, step: int) -> Mapping[str, float]:
        import torch

        torch.manual_seed(0)  # where a loss draws points, it draws the same ones each time
        sums: dict[str, float] = {}
        for number in range(batches):
            batch = source[number]
            if wrong is not None:
                wrong.note(batch.troubles)
            for name, value in losses(batch).items():
                sums[name] = sums.get(name, 0.0) + _number(value) / batches
        return sums | {"loss": sum(sums.values())}

    return evaluate


def _number(value: Tensor) -> float:
    return float(value.detach())
