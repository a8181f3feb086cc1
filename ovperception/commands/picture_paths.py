"""The pictures that the arguments of a command stand for."""

from __future__ import annotations

import glob
from pathlib import Path

from ovperception.errors import MissingFile

__all__ = ["find_pictures"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def find_pictures(pattern: str) -> list[Path]:
    """The pictures that a name, a folder or a pattern stands for; a name may turn out to be none.

    Raises:
        MissingFile: The folder or the pattern has none.
    """
    path = Path(pattern)
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES)
    elif not path.exists() and glob.has_magic(pattern):
        found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file()]
    else:
        return [path]
    if not found:
        raise MissingFile(
            "There is no picture here", field="images", expected="JPEG, PNG or WebP", got=pattern
        )
    return found
