"""A device that is none, for code that runs on GPUs and is tested without one.

Its tensors say that they are on the device ``meta`` and keep their numbers in CPU memory. As on a GPU an
operation on tensors of both sides is refused, numbers (of no dimension) and indices excepted; and whatever
makes the process wait until the device has caught up is counted.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
ROOT = Path(__file__).parents[3]
WAITS = ("_local_scalar_dense", "item", "equal", "nonzero", "_unique2", "unique_dim", "masked_select")
MAY_MIX = ("index", "index_put", "index_put_", "_index_put_impl_", "copy_")


class There(Tensor):
    """A tensor on the other device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        facts: dict[str, Any] = {"dtype": inner.dtype, "strides": inner.stride(), "device": DEVICE}
        made: There = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, storage_offset=inner.storage_offset(), **facts
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, Counter())


class _Elsewhere(TorchDispatchMode):
    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.waits)


@contextmanager
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Inside the block ``meta`` is such a device; gives how often which file of ours waited for it."""
    waits: Counter[str] = Counter()
    with monkeypatch.context() as patched:
        # What torch does before it dispatches anything.
        plain = {name: getattr(torch, name) for name in ("tensor", "as_tensor", "autocast")}
        new_tensor, tolist = Tensor.new_tensor, Tensor.tolist
        asked = torch.is_autocast_enabled

        def tensor(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            made = plain["tensor"](data, *args, **kwargs)
            return made if device is None else made.to(device)

        def as_tensor(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            made = data if isinstance(data, Tensor) else plain["as_tensor"](data, *args, **kwargs)
            return made if device is None else made.to(device)

        def new(self: Tensor, data: Any, dtype: Any = None, **kwargs: Any) -> Tensor:
            if not isinstance(self, There):
                return new_tensor(self, data, dtype=dtype, **kwargs)
            return There(plain["tensor"](data, dtype=dtype or self.dtype))

        def listed(self: Tensor) -> Any:
            if isinstance(self, There):
                waits[_where()] += 1
                return tolist(self.inner)
            return tolist(self)

        def autocast(device: str, *args: Any, **kwargs: Any) -> Any:
            return plain["autocast"]("cpu" if device == DEVICE.type else device, *args, **kwargs)

        patched.setattr(torch, "tensor", tensor)
        patched.setattr(torch, "as_tensor", as_tensor)
        patched.setattr(torch, "autocast", autocast)
        patched.setattr(torch, "is_autocast_enabled", lambda d="cpu": asked("cpu" if d == DEVICE.type else d))
        patched.setattr(Tensor, "new_tensor", new)
        patched.setattr(Tensor, "tolist", listed)
        with _Elsewhere(waits):
            yield waits


def _run(func: Any, args: Any, kwargs: Any, waits: Counter[str]) -> Any:
    name = func.overloadpacket.__name__
    leaves = tree_leaves((args, kwargs))
    there = any(isinstance(leaf, There) for leaf in leaves)
    device = kwargs.get("device")
    if device is not None:
        made = func(*tree_map(_inner, args), **tree_map(_inner, kwargs) | {"device": torch.device("cpu")})
        if torch.device(device) == DEVICE:
            return tree_map(_outer, made)
        waits[_where()] += there
        return made
    if not there:
        return func(*args, **kwargs)
    here = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, There) and x.dim()]
    if here and name not in MAY_MIX:
        raise RuntimeError(f"{name} of tensors on two devices, at {_where()}")
    waits[_where()] += name in WAITS
    own = tree_map(_inner, args)
    made = func(*own, **tree_map(_inner, kwargs))
    return args[0] if made is own[0] else tree_map(_outer, made)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, There) else value


def _outer(value: Any) -> Any:
    return There(value) if isinstance(value, Tensor) and not isinstance(value, There) else value


def _where() -> str:
    """Which of our files is at it."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and ".venv" not in path.parts and path != Path(__file__):
            return str(path.relative_to(ROOT))
    return ""
