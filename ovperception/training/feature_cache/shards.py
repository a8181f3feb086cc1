"""One file of a cache: maps and truth of some views, written whole or not at all, with a checksum beside it.

The maps of M views are one tensor a stage, so that a view is one contiguous piece of each. Truth is ragged:
the objects of all views in a row, and where each view's begin. Masks are packed to bits.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ovperception.errors import InvalidCheckpoint, InvalidParameter, ResourceExhausted
from ovperception.training.targets import Targets

__all__ = [
    "CachedView",
    "ShardFault",
    "is_whole",
    "read_view",
    "shard_fault",
    "usable",
    "write_json",
    "write_shard",
]


@dataclass(frozen=True)
class CachedView:
    """Features and truth of one view.

    Attributes:
        maps: stage name -> (C, h, w).
        target: the truth.
    """

    maps: Mapping[str, Tensor]
    target: Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFault:
    """What is wrong with a shard.

    Attributes:
        path: of the shard.
        what: in words.
    """

    path: Path
    what: str


def write_shard(path: Path, views: Sequence[CachedView | None]) -> None:
    """Write views, None for those that cannot be used; a kill at any point leaves no half shard.

    Raises:
        ResourceExhausted: the disk is full; nothing of the shard is left.
    """
    there = [view for view in views if view is not None]
    counts = [0 if view is None else len(view.target.class_ids) for view in views]
    tensors = {
        "usable": torch.tensor([view is not None for view in views], dtype=torch.uint8),
        "starts": torch.tensor(np.concatenate(([0], np.cumsum(counts)))),
        "rows": torch.tensor(np.cumsum([view is not None for view in views]) - 1),
    }
    if there:
        tensors["class_ids"] = torch.cat([view.target.class_ids for view in there])
        tensors["boxes"] = torch.cat([view.target.boxes for view in there])
        masks = torch.cat([view.target.masks for view in there])
        tensors["masks"] = torch.from_numpy(np.packbits(masks.flatten(1).numpy(), axis=1))
        tensors["frame"] = torch.tensor(masks.shape[1:])
        for stage in there[0].maps:
            tensors[f"maps.{stage}"] = torch.stack([view.maps[stage] for view in there])
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(tensors, partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        checksum, size = _checksum(partial), partial.stat().st_size
        partial.replace(path)
        write_json(_sidecar(path), {"sha256": checksum, "bytes": size, "views": len(views)})
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise _explained(error, path) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def is_whole(path: Path) -> bool:
    """Whether a shard was written to its end; its checksum is not computed."""
    try:
        return bool(path.stat().st_size == json.loads(_sidecar(path).read_text())["bytes"])
    except (OSError, ValueError, KeyError):
        return False


def shard_fault(path: Path) -> ShardFault | None:
    """What is wrong with a shard, all of which is read; None: nothing."""
    if not path.is_file():
        return ShardFault(path=path, what="is missing")
    try:
        told = json.loads(_sidecar(path).read_text())
        expected, size = told["sha256"], told["bytes"]
    except (OSError, ValueError, KeyError):
        return ShardFault(path=path, what="has no checksum beside it")
    if path.stat().st_size != size:
        return ShardFault(path=path, what=f"has {path.stat().st_size} bytes instead of {size}")
    if _checksum(path) != expected:
        return ShardFault(path=path, what="has other bytes than were written")
    return None


def usable(path: Path) -> Tensor:
    """(M,) bool, which views of a shard are there."""
    flags: Tensor = _opened(path).get_tensor("usable").bool()
    return flags


def read_view(path: Path, number: int, stages: Sequence[str]) -> CachedView:
    """View `number` of a shard; only its own bytes are read."""
    file = _opened(path)
    row = int(file.get_tensor("rows")[number])
    first, last = file.get_tensor("starts")[number : number + 2].tolist()
    height, width = file.get_tensor("frame").tolist()
    packed = file.get_slice("masks")[first:last].numpy()
    bits = np.unpackbits(packed, axis=1, count=height * width).astype(bool)
    return CachedView(
        maps={stage: file.get_slice(f"maps.{stage}")[row] for stage in stages},
        target=Targets(
            class_ids=file.get_slice("class_ids")[first:last],
            masks=torch.from_numpy(bits.reshape(-1, height, width)),
            boxes=file.get_slice("boxes")[first:last],
        ),
    )


@lru_cache(maxsize=64)
def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InvalidCheckpoint(
            f"{path} cannot be read", got=error, mend="Run `ovp features verify` and export again"
        ) from error


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _explained(error: Exception, path: Path) -> Exception:
    number = getattr(error, "errno", None)
    full = number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    if full:
        return ResourceExhausted(
            "The disk is full; the shards written so far are whole",
            got=path,
            mend="Free some space and export again: it goes on where it stopped",
        )
    return InvalidParameter(f"{path} cannot be written", field="out", got=error)
