"""The device of a process: which one it is, and what its faults mean to whoever wrote the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ovperception.errors import InvalidParameter, ResourceExhausted, Unsupported

__all__ = ["faults_of_devices", "own_device"]


def own_device(device: str, *, local_rank: int = 0) -> str:
    """The device of one process of a machine, ready to be used.

    Args:
        device: of the recipe; ``cuda`` becomes the GPU of the process's place on its machine.
        local_rank: that place.

    Returns:
        ``cpu``, or a GPU with its number, which is then the current one: generators, collective operations
        and whatever says ``cuda`` mean it.

    Raises:
        InvalidParameter: there is no such device.
    """
    try:
        named = torch.device(device)
    except RuntimeError as error:
        raise InvalidParameter(
            "There is no such device", field="device", expected="cpu, cuda or cuda:0", got=device
        ) from error
    if named.type != "cuda":
        return device
    index = local_rank if named.index is None else named.index
    count = torch.cuda.device_count()
    if index >= count:
        raise InvalidParameter(
            "There is no such GPU",
            field="device",
            expected=f"one of {count}"
            if count
            else "a machine with a GPU, and a torch that was built for it",
            got=f"cuda:{index}",
            mend="Start as many processes as the machine has GPUs, or say device=cpu",
        )
    torch.cuda.set_device(index)
    return f"cuda:{index}"


@contextmanager
def faults_of_devices() -> Iterator[None]:
    """Inside the block what torch says of its device is said in words of the recipe.

    Raises:
        ResourceExhausted: the memory of the device is full.
        Unsupported: a step has no deterministic form there.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ResourceExhausted(
            "The memory of the device is full",
            field="batch_size",
            got=str(error).splitlines()[0],
            mend="See a step in parts (accumulate=2), multiply in bfloat16, or make batch or "
            "pictures smaller; the same command goes on from the last checkpoint",
        ) from error
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise Unsupported(
            "A step of this recipe has no deterministic form on this device",
            field="loop.deterministic",
            got=str(error).split(",")[0],
            mend="Say deterministic=false: a resumed run is then as good, but not equal bit by bit",
        ) from error
