"""Files that are whole or not there: the state of a run, the weights it made, and its random generators."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch

from ovperception.errors import InvalidCheckpoint, ResourceExhausted

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "load_checkpoint",
    "random_state",
    "restore_random_state",
    "save_checkpoint",
    "save_weights",
    "write_whole",
]


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file in one move: what stood there stays until the new one is on the disk.

    Args:
        path: where to.
        write: writes the content.

    Raises:
        ResourceExhausted: it could not be written; what stood there is as it was.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
        partial.unlink(missing_ok=True)
        raise ResourceExhausted(
            f"{path} could not be written",
            got=_cause(error, path.parent),
            mend="Make room on the disk, or give another out=FOLDER; what was saved before is intact",
        ) from error


def _cause(error: Exception, folder: Path) -> str:
    """In words: what torch says of a full disk speaks of positions in its own file."""
    if isinstance(error, OSError) or not folder.is_dir():
        return str(error).splitlines()[0]
    free = shutil.disk_usage(folder).free
    return f"a disk with {free / 1e6:.1f} MB free, and {str(error).splitlines()[0]}"


def _sync_folder(folder: Path) -> None:
    """Without it a crash of the machine can undo the rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings, lists and dicts of them, in one move.

    Raises:
        ResourceExhausted: no room; the file that stood there is intact.
    """
    write_whole(path, lambda file: torch.save(dict(state), file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing else in a file is run.

    Raises:
        InvalidCheckpoint: it is no such file.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler says of a file that is none of ours
        raise InvalidCheckpoint(
            f"{path} cannot be read",
            expected="the state of a run",
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            mend="Remove the file to begin anew",
        ) from error
    return state


def save_weights(module: nn.Module, path: Path) -> Path:
    """Write a module's weights as safetensors, in one move; returns the path."""
    from safetensors.torch import save

    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    write_whole(path, lambda file: file.write(save(tensors)))
    return path


def random_state() -> dict[str, Any]:
    """The state of every generator that training draws from: Python's, numpy's, torch's, and the GPU's."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, spare = random.getstate()
    return {
        "python": [version, list(words), spare],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set the generators as `random_state` found them."""
    version, words, spare = state["python"]
    random.setstate((version, tuple(words), spare))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
