"""What is done to gradients before a step: clipping policies, and telling which numbers are not finite.

A policy is called with the parameters after each backward pass, changes their gradients in place and returns
the norm they had. Its state travels in the checkpoint, so that a policy that learns from the norms it has
seen is taken up where it was. A further kind is a class with these three methods and a line in `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ClipKind", "ClipPolicy", "GradientClip", "clip_policy", "not_finite", "total_norm"]

ClipKind = Literal["none", "norm", "norm_each", "value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientClip:
    """Which policy, and its limit.

    Attributes:
        kind: ``none``; ``norm``: all gradients together are scaled down to a norm of `limit`; ``norm_each``:
            every parameter's by itself (detectron2's CLIP_TYPE "norm"); ``value``: every number.
        limit: the largest norm or absolute value.
    """

    kind: ClipKind = "norm"
    limit: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an unknown kind and a limit that would stop the training."""
        if self.kind not in get_args(ClipKind):
            raise InvalidParameter(
                "No such gradient clipping",
                field="clip.kind",
                expected=" or ".join(get_args(ClipKind)),
                got=self.kind,
            )
        if not self.limit > 0:
            raise InvalidParameter("A limit of clipping must be positive", field="clip.limit", got=self.limit)


class ClipPolicy(Protocol):
    """Changes gradients in place."""

    def __call__(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Clip; returns the total norm before, a scalar."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: numbers, strings, tensors."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        ...


def total_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The 2-norm of all gradients together; not finite if any number of them is not."""
    import torch

    gradients = [p.grad for p in parameters if p.grad is not None]
    return _of_all_shares(torch.nn.utils.get_total_norm(gradients))


def _of_all_shares(number: Tensor) -> Tensor:
    """A number as it is over all processes, where tensors are spread over them; every process calls it."""
    from torch.distributed.tensor import DTensor

    return number.full_tensor() if isinstance(number, DTensor) else number


class _Stateless:
    def __init__(self, limit: float) -> None:
        self.limit = limit

    def state_dict(self) -> dict[str, Any]:
        """Nothing is remembered."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing is remembered."""


class _NoClip(_Stateless):
    def __call__(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        return total_norm(parameters)


class _ByNorm(_Stateless):
    def __call__(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        import torch

        norm = total_norm(parameters)
        # A norm that is not a number would make every gradient one, and hide which it came from.
        torch.nn.utils.clip_grads_with_norm_(parameters, self.limit, norm.nan_to_num())
        return norm


class _ByEachNorm(_Stateless):
    def __call__(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        import torch

        norm = total_norm(parameters)
        for parameter in parameters:
            if parameter.grad is not None:
                torch.nn.utils.clip_grad_norm_(parameter, self.limit)
        return norm


class _ByValue(_Stateless):
    def __call__(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        import torch

        norm = total_norm(parameters)
        torch.nn.utils.clip_grad_value_(parameters, self.limit)
        return norm


_KINDS: Mapping[str, type[_Stateless]] = {
    "none": _NoClip,
    "norm": _ByNorm,
    "norm_each": _ByEachNorm,
    "value": _ByValue,
}


def clip_policy(settings: GradientClip) -> ClipPolicy:
    """The policy that the settings name."""
    policy: Any = _KINDS[settings.kind](settings.limit)
    made: ClipPolicy = policy
    return made


def not_finite(named: Iterable[tuple[str, Tensor | None]]) -> list[str]:
    """The names of tensors that hold a number which is not finite."""
    return [
        name
        for name, tensor in named
        if tensor is not None and not bool(_of_all_shares(tensor.isfinite().all()))
    ]
