"""One module's weights spread over several processes (FSDP), for heads too large to be held whole in each.

Weights, gradients and the optimizer's state of a process are its share; what a block needs is gathered while
it runs. Checkpoints do not show it: they hold whole tensors, written by one process, so that a run may go on
with another number of processes, sharded or not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ovperception.errors import InvalidCheckpoint
from ovperception.training.distributed import CalledLosses, World

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.fsdp import FSDPModule

__all__ = ["Shards", "shared_out", "shared_out_optimizer", "whole"]

BLOCK = 1_000_000
"""Parameters from which on a layer of a list is gathered by itself; what is left is gathered together."""


class Shards:
    """A module whose parameters are spread over the processes of a world.

    Layers of a ``ModuleList`` have to be called (``layer(x)``, not ``layer.linear(x)``), by every process as
    often: a call is what gathers their weights.

    Args:
        module: what is trained; its parameters are replaced, so an optimizer is made after this.
        world: of two processes or more.
        block: parameters from which on a layer of a list is gathered by itself.
    """

    def __init__(self, module: nn.Module, world: World, *, block: int = BLOCK) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self._scalars = _as_lists(module)
        mesh = init_device_mesh(world.device.split(":")[0], (world.size,))
        self._called = CalledLosses(module)
        blocks = list(_blocks(module, block))
        for part in (*blocks, self._called):
            fully_shard(part, mesh=mesh)
        self._root = cast("FSDPModule", self._called)
        self._blocks: list[Any] = blocks
        self._world = world

    def calling(self, losses: Callable[[Any], Mapping[str, Tensor]]) -> nn.Module:
        """Losses of this process's batch, whose gradients come out averaged and in shares."""
        self._called.losses = lambda batch: self._touched(losses(batch))
        return self._called

    def _touched(self, named: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Give zero gradients to what only the losses of another process reach: all exchange the same."""
        own = [p for p in self._called.module.parameters() if not isinstance(p, DTensor)]
        reached = _reached(named.values())
        used = self._world.largest(*(float(id(p) in reached) for p in own))
        lacking = [p for p, u in zip(own, used, strict=True) if u and id(p) not in reached]
        if not lacking:
            return named
        name, value = next(iter(named.items()))
        return dict(named) | {name: value + torch.stack([p.flatten()[0] for p in lacking]).sum() * 0}

    def whole(self, state: Mapping[str, Any], *, keep: bool = True) -> dict[str, Any]:
        """The module's state, or another with a tensor a parameter, as one process has it."""
        found: dict[str, Any] = whole(state, keep=keep)
        return found | {n: found[n].view(()) for n in self._scalars if keep and n in found}

    def whole_optimizer(self, optimizer: torch.optim.Optimizer, *, keep: bool = True) -> dict[str, Any]:
        """The optimizer's state as one process has it."""
        found: dict[str, Any] = whole(optimizer.state_dict(), keep=keep)
        named = {id(p): name for name, p in self._called.module.named_parameters()}
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, moments in found["state"].items():
            if keep and named[id(parameters[number])] in self._scalars:
                moments |= {k: v.view(()) if isinstance(v, torch.Tensor) else v for k, v in moments.items()}
        return found

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Inside the block gradients stay in the process: more is to be added before they are averaged."""
        self._root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self._root.set_requires_gradient_sync(True)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside the block every process holds all weights, and one alone may run the module."""
        parts = (self._root, *self._blocks)
        for part in parts:
            part.unshard()
        # Without its hooks a forward pass exchanges nothing, and leaves no trace of an order that the other
        # processes did not see.
        hooks = [(part, part._forward_pre_hooks, part._forward_hooks) for part in self._blocks]
        for part in self._blocks:
            part._forward_pre_hooks, part._forward_hooks = OrderedDict(), OrderedDict()
        try:
            yield
        finally:
            for part, before, after in hooks:
                part._forward_pre_hooks, part._forward_hooks = before, after
            for part in parts:
                part.reshard()


def _as_lists(module: nn.Module) -> set[str]:
    """Parameters that are one number become lists of one, which can be spread; returns their names."""
    scalars = {name: p for name, p in module.named_parameters() if p.ndim == 0}
    for name, number in scalars.items():
        owner, _, key = name.rpartition(".")
        alone = nn.Parameter(number.detach().view(1), requires_grad=number.requires_grad)
        setattr(module.get_submodule(owner), key, alone)
    return set(scalars)


def _blocks(module: nn.Module, least: int) -> Iterator[nn.Module]:
    """The outermost layers of lists that are large enough."""
    for child in module.children():
        layers = [*child] if isinstance(child, nn.ModuleList) else []
        large = [layer for layer in layers if sum(p.numel() for p in layer.parameters()) >= least]
        yield from large
        for part in layers or [child]:
            if part not in large:
                yield from _blocks(part, least)


def _reached(losses: Any) -> set[int]:
    """Identities of the parameters that backward passes from these would reach."""
    found: set[int] = set()
    waiting = [loss.grad_fn for loss in losses]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        ahead = {following for following, _ in node.next_functions} - seen
        seen |= ahead
        waiting += ahead
    return found


def whole(tree: Any, *, keep: bool = True) -> Any:
    """A state with whole tensors, on the CPU, where it holds shares; every process calls it.

    Args:
        tree: tensors, numbers, strings, and mappings and lists of them.
        keep: whether this process needs what comes out; without, it only takes part.
    """
    if isinstance(tree, Mapping):
        return {key: whole(value, keep=keep) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(whole(value, keep=keep) for value in tree)
    if not isinstance(tree, DTensor):
        return tree
    found = tree.full_tensor().detach()
    return found.cpu() if keep else None


def shared_out(tree: Any, like: Any) -> Any:
    """What `whole` gave, in shares where `like` has them.

    Args:
        tree: whole tensors in mappings and lists.
        like: of the same structure, as far as it goes.

    Raises:
        InvalidCheckpoint: a tensor has another shape than its share says.
    """
    if isinstance(tree, Mapping):
        known = like if isinstance(like, Mapping) else {}
        return {key: shared_out(value, known.get(key)) for key, value in tree.items()}
    if not isinstance(like, DTensor) or not isinstance(tree, torch.Tensor):
        return tree
    if not tree.ndim and like.numel() == 1:
        tree = tree.view(1)
    if tree.shape != like.shape:
        raise InvalidCheckpoint(
            "The weights have another shape", expected=str(tuple(like.shape)), got=tuple(tree.shape)
        )
    device = like.to_local().device
    return distribute_tensor(tree.to(device), like.device_mesh, like.placements, src_data_rank=None)


def shared_out_optimizer(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> Mapping[str, Any]:
    """An optimizer's state whose moments are shares where the parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        **state,
        "state": {
            number: {
                name: shared_out(value, parameters[number])
                if name != "step"  # a number, whatever the shape of the parameter
                else value
                for name, value in moments.items()
            }
            for number, moments in state["state"].items()
        },
    }
