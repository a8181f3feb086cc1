"""Half precision without vanishing gradients: losses are scaled up before the backward pass.

Gradients come out as much too large and are scaled down again. bfloat16 has the range of float32 and needs
none of it; float16 is what older GPUs are fast in. The rule is that of arXiv:1710.03740, section 3.2: double
the scale after many sound steps, halve it when a gradient overflows, and leave that step out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["LossScale", "multiplied_in"]


def multiplied_in(*, bfloat16: bool, float16: bool) -> torch.dtype:
    """The type that matrices are multiplied in.

    Raises:
        InvalidParameter: both are asked for.
    """
    if bfloat16 and float16:
        raise InvalidParameter(
            "Matrices are multiplied in one type", field="float16", expected="float16 or bfloat16", got="both"
        )
    if float16:
        return torch.float16
    return torch.bfloat16 if bfloat16 else torch.float32


class LossScale:
    """The scale of a run's losses; its state travels in the checkpoint.

    Args:
        enabled: without, the scale is 1 and stays so.
        interval: sound steps in a row after which the scale doubles.
    """

    def __init__(self, *, enabled: bool, interval: int = 2000) -> None:
        self.enabled = enabled
        self.interval = interval
        self.scale = 2.0**16 if enabled else 1.0
        self.sound = 0

    def scaled(self, loss: Tensor) -> Tensor:
        """What to call `backward` on."""
        return loss * self.scale if self.enabled else loss

    @torch.no_grad()
    def unscale(self, parameters: Sequence[nn.Parameter]) -> None:
        """Bring the gradients back to their size."""
        if self.enabled:
            gradients = [p.grad for p in parameters if p.grad is not None]
            torch._foreach_mul_(gradients, 1 / self.scale)

    def forgives(self, *, losses_sound: bool, gradients_sound: bool) -> bool:
        """Note how a step came out; whether what is not finite is the scale's doing.

        That is so where the losses are finite and the gradients are not, and the scale can still be lowered:
        the step is left out, and counts as no fault of the data.

        Args:
            losses_sound: whether all losses of the step are finite.
            gradients_sound: whether all gradients are.
        """
        if not self.enabled:
            return False
        if losses_sound and gradients_sound:
            self.sound += 1
            if self.sound == self.interval:
                self.scale, self.sound = self.scale * 2, 0
            return False
        self.sound = 0
        if not losses_sound or self.scale <= 1:
            return False
        self.scale /= 2
        return True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"scale": self.scale, "sound": self.sound}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave; of a run in another precision, nothing."""
        if self.enabled and state:
            self.scale, self.sound = float(state["scale"]), int(state["sound"])
