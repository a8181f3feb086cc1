"""Several processes as one run: who they are, what they agree on, and who writes.

`torchrun` starts the processes and tells each its rank by environment variables; without them the world is
one process and everything here is free. Each process sees batches of its own, gradients are averaged, and
decisions (a number that is not finite, a request to stop, the time) are taken together, so that no process
waits for another that has left.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ovperception.errors import InvalidParameter
from ovperception.training.devices import own_device

if TYPE_CHECKING:
    from torch import Tensor

    from ovperception.training.sharding import Shards

__all__ = ["CalledLosses", "ParallelLosses", "World", "joined_world"]

_PATIENCE = timedelta(hours=2)
"""How long the others wait for one that evaluates or writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The processes of a run.

    Attributes:
        rank: of this one, from 0.
        size: how many.
        device: of this one, such as ``cuda:1``.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def writes(self) -> bool:
        """Whether this is the one process that writes files and talks to the user."""
        return self.rank == 0

    def largest(self, *numbers: float) -> list[float]:
        """Each number as the largest that any process gave."""
        if self.size == 1:
            return list(numbers)
        told = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        found: list[float] = told.tolist()
        return found

    def mean(self, number: float) -> float:
        """The mean over the processes."""
        if self.size == 1:
            return number
        told = torch.tensor(number, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(told)
        return float(told) / self.size

    def gathered(self, value: Any) -> list[Any]:
        """What every process gave, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    def told_by_writer(self, make: Callable[[], Any]) -> Any:
        """What `make` gives in the process that writes, in every process; it runs there alone.

        An error that it raises is raised everywhere.
        """
        if self.size == 1:
            return make()
        told: list[Any] = [None, None]
        if self.writes:
            try:
                told = [make(), None]
            except Exception as error:
                told = [None, error]
        torch.distributed.broadcast_object_list(told, src=0)
        if told[1] is not None:
            raise told[1]
        return told[0]

    def share_of(self, batch_size: int, accumulate: int) -> int:
        """Images of one process in one part of a step that sees `batch_size` in all.

        Raises:
            InvalidParameter: it cannot be shared out evenly.
        """
        parts = self.size * accumulate
        if batch_size % parts:
            raise InvalidParameter(
                "The batch cannot be shared out",
                field="batch_size",
                expected=f"a multiple of {self.size} processes x {accumulate} accumulated parts",
                got=batch_size,
            )
        return batch_size // parts


@contextmanager
def joined_world(device: str) -> Iterator[World]:
    """The world that torchrun describes, joined for the length of the block.

    Args:
        device: of the recipe; ``cuda`` becomes the GPU of the process's local rank.

    Raises:
        InvalidParameter: there is no such device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = own_device(device, local_rank=int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield World(device=device)
        return
    rank = int(os.environ["RANK"])
    gpu = torch.device(device) if device.startswith("cuda") else None
    torch.distributed.init_process_group("nccl" if gpu else "gloo", timeout=_PATIENCE, device_id=gpu)
    try:
        yield World(rank=rank, size=size, device=device)
    finally:
        torch.distributed.destroy_process_group()


class ParallelLosses(nn.Module):
    """Losses of a batch whose gradients come out averaged over the processes.

    A head's loss is not its `forward`, and it is the forward of what it wraps that
    `DistributedDataParallel` listens to: so the loss becomes one.

    Args:
        module: what is trained.
        losses: batch to named losses, by the module.
        world: the processes.
        shards: of the module, where its weights are spread over the processes.
    """

    def __init__(
        self,
        module: nn.Module,
        losses: Callable[[Any], Mapping[str, Tensor]],
        world: World,
        shards: Shards | None = None,
    ) -> None:
        super().__init__()
        self._called: nn.Module | Callable[[Any], Mapping[str, Tensor]] = losses
        self._parallel: nn.parallel.DistributedDataParallel | None = None
        self._shards = shards
        if shards is not None:
            self._called = shards.calling(losses)
        elif world.size > 1:
            ids = [torch.device(world.device).index] if world.device.startswith("cuda") else None
            # Which parameters a loss reaches changes with the step: native crops, images without objects.
            self._parallel = nn.parallel.DistributedDataParallel(
                CalledLosses(module, losses), device_ids=ids, find_unused_parameters=True
            )

    def forward(self, batch: Any) -> Mapping[str, Tensor]:
        """Named losses of this process's batch."""
        called: Any = self._called if self._parallel is None else self._parallel
        found: Mapping[str, Tensor] = called(batch)
        return found

    def apart(self) -> AbstractContextManager[None]:
        """Inside the block gradients stay in the process: more is to be added before they are averaged."""
        if self._shards is not None:
            return self._shards.apart()
        if self._parallel is None:
            return nullcontext()
        inside: AbstractContextManager[None] = self._parallel.no_sync()
        return inside


class CalledLosses(nn.Module):
    """The losses of a module as a forward pass of their own.

    Args:
        module: what is trained.
        losses: batch to named losses, by the module; they may be given later.
    """

    def __init__(
        self, module: nn.Module, losses: Callable[[Any], Mapping[str, Tensor]] | None = None
    ) -> None:
        super().__init__()
        self.module = module
        self.losses = losses

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Named losses of a batch."""
        assert self.losses is not None
        return dict(self.losses(batch))
