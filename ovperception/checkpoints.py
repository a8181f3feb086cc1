"""Weight files that others wrote, as tensors by name. Nothing in them is executed."""

from __future__ import annotations

import collections
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovperception.errors import InvalidCheckpoint, MissingFile

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor

__all__ = ["as_tensor", "check_entries", "read_content", "read_state_dict"]

_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    IndexError,
    OSError,
    UnicodeDecodeError,
)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict.

    Args:
        path: ``.safetensors``, or a file of `torch.save`: the state dict, or a dict that holds it as
            ``model`` (detectron2) or ``state_dict``. numpy arrays are taken for tensors.

    Raises:
        MissingFile: there is no such file.
        InvalidCheckpoint: it cannot be read without executing it, or holds something else.
    """
    content = read_content(path)
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise InvalidCheckpoint(
            f"{path.name} holds no state dict",
            expected="tensors by name, bare or under 'model' or 'state_dict'",
            got=type(content).__name__,
        )
    state = {key: as_tensor(value) for key, value in content.items()}
    wrong = [str(key) for key, value in state.items() if value is None or not isinstance(key, str)]
    if wrong:
        raise InvalidCheckpoint(
            f"{path.name} holds entries that are no named tensors",
            expected="tensors by name, bare or under 'model' or 'state_dict'",
            got=", ".join(wrong[:10]),
        )
    return {key: value for key, value in state.items() if value is not None}


def read_content(path: Path) -> Any:
    """Whatever a weight file holds: tensors, arrays, plain containers of them.

    Raises:
        MissingFile: there is no such file.
        InvalidCheckpoint: it cannot be read without executing it, or not at all.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise MissingFile("There is no such checkpoint", got=path, expected="a file of weights")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise InvalidCheckpoint(
                f"{path.name} cannot be read as weights",
                expected="a complete .safetensors file",
                got=error,
                mend="Download it again",
            ) from error
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_plain_types()):
            warnings.simplefilter("ignore")  # torch's remarks on files that are then refused or checked
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise InvalidCheckpoint(
            f"{path.name} cannot be read as weights",
            expected="a complete file of torch.save that holds tensors and plain containers only",
            # What torch says further is how to have the file's code executed.
            got=f"{type(error).__name__}: {str(error).partition('. ')[0]}",
            mend="Download it again; a file that needs code to be loaded is refused",
        ) from error


def as_tensor(value: object) -> Tensor | None:
    """A tensor or a numeric array as a tensor; None for anything else."""
    import numpy as np
    import torch

    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.ascontiguousarray(value))
    return value if isinstance(value, torch.Tensor) else None


class _Name:
    """Stands for a class that a checkpoint only names, such as the callbacks of PyTorch Lightning."""


def _plain_types() -> list[Any]:
    """What checkpoints of detectron2 and Lightning may hold beside tensors: arrays, counts, names."""
    import numpy as np

    kinds = {type(np.dtype(kind)) for kind in "bBhHiIlLqQefd?"}
    rebuild = np.zeros(0).__reduce__()[0]
    rebuild_number = np.float64(0).__reduce__()[0]
    # Files of numpy 1 name the same functions in `numpy.core`.
    older = [
        (function, f"numpy.core.multiarray.{name}")
        for function, name in ((rebuild, "_reconstruct"), (rebuild_number, "scalar"))
    ]
    named = [
        (_Name, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
        (collections.OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    ]
    return [*named, rebuild, rebuild_number, np.ndarray, np.dtype, *kinds, *older, collections.Counter]


def check_entries(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    what: str,
    mend: str = "Only checkpoints of the official code are understood",
    optional: Collection[str] = (),
    ignored: Collection[str] = (),
) -> None:
    """See that a state dict holds what it should, in the right shapes, and nothing else.

    Args:
        state: The tensors by name.
        wanted: Name -> shape.
        what: How the error's sentence begins, such as "x.pth does not fit FC-CLIP".
        mend: What to do about it.
        optional: Names that may be absent; of the right shape where `wanted` tells one.
        ignored: Names that may be there besides.

    Raises:
        InvalidCheckpoint: Entries are missing, unexpected or misshaped; the first ten of each are named.
    """
    findings = {
        "missing": sorted(set(wanted) - set(state) - set(optional)),
        "unexpected": sorted(set(state) - set(wanted) - set(optional) - set(ignored)),
        "misshaped": sorted(
            f"{name} {tuple(state[name].shape)} instead of {shape}"
            for name, shape in wanted.items()
            if name in state and tuple(state[name].shape) != shape
        ),
    }
    problems = [
        f"{len(found)} {kind} ({', '.join(found[:10])}{', ...' if len(found) > 10 else ''})"
        for kind, found in findings.items()
        if found
    ]
    if problems:
        raise InvalidCheckpoint(f"{what}: {'; '.join(problems)}", mend=mend)
