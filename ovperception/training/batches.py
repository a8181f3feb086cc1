"""Batches by number, prepared ahead by worker processes.

What a step sees is a function of its number and nothing else. So a run that was stopped goes on with the very
batches it would have seen, processes share the numbers out among themselves, and a batch that made a loss
that is not finite can be looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch.utils.data import DataLoader

from ovperception.errors import OVPError
from ovperception.training.pinned import pinned
from ovperception.training.workers import leave_stopping_to_the_run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "BatchSource",
    "NamedSource",
    "Normaliser",
    "batch_names",
    "numbered_batches",
]

BatchT = TypeVar("BatchT")
_Out = TypeVar("_Out", covariant=True)


class BatchSource(Protocol[_Out]):
    """Batches by number, from 0 on, without end: the same number, the same batch, in any process."""

    def __getitem__(self, number: int, /) -> _Out:
        """The batch; it draws from generators of its own, seeded by the number."""
        ...


@runtime_checkable
class NamedSource(Protocol):
    """A source that can say what is in a batch without loading it."""

    def names(self, number: int) -> Sequence[str]:
        """What a person would look for: paths or ids of the batch's images."""
        ...


def batch_names(source: object, number: int) -> list[str]:
    """The names of a batch's images, or its number where the source knows none."""
    return list(source.names(number)) if isinstance(source, NamedSource) else [f"batch {number}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded(Generic[BatchT]):
    """A batch or, in its place, why there is none.

    Torch would make the error of a worker anew from its class and a text, which ours are not made of.
    """

    number: int
    batch: BatchT | None = None
    error: OVPError | None = None

    def pin_memory(self) -> _Loaded[BatchT]:
        """As the loader asks for it, in a thread of its own."""
        return replace(self, batch=pinned(self.batch))


class _Numbered(Generic[BatchT]):
    """A data set of batches under their numbers."""

    def __init__(self, source: BatchSource[BatchT]) -> None:
        self.source = source

    def __getitem__(self, number: int) -> _Loaded[BatchT]:
        try:
            return _Loaded(number=number, batch=self.source[number])
        except OVPError as error:
            return _Loaded(number=number, error=error)


def numbered_batches(
    source: BatchSource[BatchT],
    numbers: Sequence[int],
    *,
    workers: int,
    ahead: int = 4,
    for_gpu: bool = False,
) -> Iterator[tuple[int, BatchT]]:
    """The batches of these numbers, in this order.

    Args:
        source: where they come from.
        numbers: which ones.
        workers: processes that prepare them; 0: the calling process does.
        ahead: batches that each worker prepares ahead.
        for_gpu: whether their tensors are put where a GPU copies them from without waiting.

    Raises:
        OVPError: what the source raised, in a worker too, when its number is due.
    """
    loader: DataLoader[Any] = DataLoader(
        _Numbered(source),  # type: ignore[arg-type]
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        collate_fn=_as_it_is,
        worker_init_fn=leave_stopping_to_the_run,
        pin_memory=for_gpu,
        # Of its own, so that making a loader draws nothing from the generator that the losses draw from.
        generator=torch.Generator().manual_seed(0),
    )
    return _or_error(iter(loader))


def _or_error(found: Iterator[_Loaded[Any]]) -> Iterator[tuple[int, Any]]:
    for loaded in found:
        if loaded.error is not None:
            raise loaded.error
        yield loaded.number, loaded.batch


def _as_it_is(batch: Any) -> Any:
    """The source's own types: the loader's default would turn tuples into lists."""
    return batch


class Normaliser:
    """uint8 canvases to what an image tower takes.

    Args:
        statistics: an open_clip ``preprocess_cfg``: mean and std on the scale 0 to 1.
        device: where to.
    """

    def __init__(self, statistics: Mapping[str, Any], device: str) -> None:
        self.device = device
        self.mean, self.std = (
            255 * torch.tensor(statistics[key]).view(1, 3, 1, 1).to(device) for key in ("mean", "std")
        )

    def __call__(self, canvases: NDArray[np.uint8]) -> Tensor:
        """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, channels last."""
        pixels = torch.from_numpy(canvases).to(self.device).permute(0, 3, 1, 2)
        return ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
