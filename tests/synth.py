"""Deterministic weights by name: any two programs that agree on names agree on every number.

Each tensor is drawn from a generator seeded with the CRC-32 of its name and scaled by what it is: matrices by
their fan-in, norm scales around one, everything else small. So two implementations of a model can be compared
without a checkpoint.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["fill", "state_dict", "tensor"]


def tensor(name: str, shape: Sequence[int]) -> Tensor:
    """The float32 tensor of this name and shape."""
    shape = tuple(shape)
    seed = zlib.crc32(name.encode()) & 0xFFFFFFFF
    noise = np.random.RandomState(seed).standard_normal(size=math.prod(shape)).reshape(shape)
    kind = name.rsplit(".", maxsplit=1)[-1]
    if kind == "logit_scale":
        values = np.full(shape, math.log(100.0))
    elif kind == "running_var":
        values = 1 + 0.1 * np.abs(noise)
    elif kind == "running_mean":
        values = 0.1 * noise
    elif len(shape) >= 2:
        values = noise / math.sqrt(math.prod(shape[1:]))
    elif kind == "weight":
        values = 1 + 0.1 * noise
    elif kind == "gamma":
        values = 0.5 + 0.1 * noise
    else:
        values = 0.02 * noise
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def state_dict(manifest: Mapping[str, tuple[Sequence[int], str]]) -> dict[str, Tensor]:
    """A whole state dict from ``{name: (shape, dtype name)}``; integers are zero."""
    return {
        name: tensor(name, shape)
        if dtype.startswith("float")
        else torch.zeros(tuple(shape), dtype=torch.int64)
        for name, (shape, dtype) in manifest.items()
    }


@torch.no_grad()
def fill(module: nn.Module, prefix: str = "") -> None:
    """Fill a module in place; `prefix` goes before its own names."""
    for name, value in module.state_dict(keep_vars=True).items():
        if value.is_floating_point():
            value.copy_(tensor(prefix + name, value.shape).to(value.dtype))
