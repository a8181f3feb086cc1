"""What of a module is trained, how fast, and what a forward pass changes besides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ovperception.errors import InvalidParameter

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["NormStatistics", "OptimizerSettings", "make_optimizer", "parameter_groups"]


_TABLES = ("embed", "query", "level")
"""Words in the names of tables of learned vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """Which optimizer.

    Attributes:
        kind: ``adamw`` or ``sgd``.
        weight_decay: of matrices; biases, norms, tables of queries and scales have none.
        betas: of AdamW.
        momentum: of SGD.
        faster: first words of parameter names, and the factor of their learning rate, as where a paper
            trains what begins at random faster than what was trained before.
        decay_all: whether biases and norms decay as well.
        decay_but_norms: whether all decays but norms and tables, as detectron2 has it: biases and scales
            with the matrices.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    faster: Mapping[str, float] | None = None
    decay_all: bool = False
    decay_but_norms: bool = False

    def __post_init__(self) -> None:
        """Refuse two rules at once."""
        if self.decay_all and self.decay_but_norms:
            raise InvalidParameter("One rule says what decays", field="optimizer.decay_but_norms", got=True)


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    *,
    faster: Mapping[str, float] | None = None,
    decay_all: bool = False,
    decay_but_norms: bool = False,
) -> list[dict[str, Any]]:
    """Groups for an optimizer: matrices decay; biases, norms, tables of queries and scales do not.

    Args:
        module: its parameters that require gradients are grouped.
        weight_decay: of the matrices.
        faster: prefixes of names, and factors of the learning rate.
        decay_all: whether everything decays.
        decay_but_norms: whether everything decays but norms and tables.

    Returns:
        Two groups for each factor, the ones that decay first.

    Raises:
        InvalidParameter: a prefix fits no parameter.
    """
    prefixes = dict(faster or {})
    used = set()
    spared = set(_norms_and_tables(module))
    found: dict[float, tuple[list[nn.Parameter], list[nn.Parameter]]] = {1.0: ([], [])}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        prefix = next((p for p in prefixes if name.startswith(p)), None)
        used.add(prefix)
        decay, plain = found.setdefault(1.0 if prefix is None else prefixes[prefix], ([], []))
        decays = decay_all or (name not in spared and (decay_but_norms or parameter.ndim >= 2))
        (decay if decays else plain).append(parameter)
    unused = set(prefixes) - used
    if unused:
        raise InvalidParameter(
            "No trained parameter begins so", field="optimizer.faster", got=", ".join(sorted(unused))
        )
    groups: list[dict[str, Any]] = []
    for factor, (decay, plain) in found.items():
        extra = {} if factor == 1.0 else {"rate_factor": factor}
        groups.append({"params": decay, "weight_decay": weight_decay, **extra})
        groups.append({"params": plain, "weight_decay": 0.0, **extra})
    return groups


def _norms_and_tables(module: nn.Module) -> Iterator[str]:
    """Names of what layers of norms hold, and of tables that a module holds itself."""
    import torch.nn.modules as known

    norms = (known.batchnorm._NormBase, known.LayerNorm, known.GroupNorm)
    for owner, part in module.named_modules():
        for name, _ in part.named_parameters(recurse=False):
            table = isinstance(part, known.Embedding) or any(key in name for key in _TABLES)
            if table or isinstance(part, norms):
                yield f"{owner}.{name}" if owner else name


def make_optimizer(
    module: nn.Module, settings: OptimizerSettings, learning_rate: float
) -> torch.optim.Optimizer:
    """The optimizer of a module's trained parameters."""
    import torch

    groups = parameter_groups(
        module,
        settings.weight_decay,
        faster=settings.faster,
        decay_all=settings.decay_all,
        decay_but_norms=settings.decay_but_norms,
    )
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=settings.momentum)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=settings.betas)


class NormStatistics:
    """The running statistics of batch norms: the one thing that a forward pass with a NaN would spoil."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._kept: list[tuple[Tensor, Tensor]] = []

    def keep(self) -> None:
        """Remember those of the norms that follow the data at present."""
        import torch

        self._kept = [
            (buffer, buffer.clone())
            for part in self.module.modules()
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.training
            for buffer in part.buffers(recurse=False)
        ]

    def restore(self) -> None:
        """Undo what the forward pass did to them."""
        for buffer, value in self._kept:
            buffer.copy_(value)
