"""Batches in memory that a GPU copies from by itself, while the next one is prepared."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

__all__ = ["pinned"]


def pinned(batch: Any) -> Any:
    """The same batch, its tensors in page-locked memory.

    Tensors are looked for in dataclasses, tuples, lists and mappings, whose types stay what they are; the
    loader's own way makes lists of tuples and looks into no dataclass.
    """
    if isinstance(batch, torch.Tensor):
        return batch.pin_memory()
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        held = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch) if f.init}
        moved = {name: pinned(value) for name, value in held.items()}
        changed = {name: value for name, value in moved.items() if value is not held[name]}
        return dataclasses.replace(batch, **changed) if changed else batch
    if isinstance(batch, dict):
        return {key: pinned(value) for key, value in batch.items()}
    if type(batch) in (tuple, list):
        moved_items = [pinned(value) for value in batch]
        same = all(new is old for new, old in zip(moved_items, batch, strict=True))
        return batch if same else type(batch)(moved_items)
    return batch
