"""Finding the files of a data set, and saying where to get them when they are not there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovperception.errors import InvalidDataset, MissingFile

__all__ = ["Origin", "first_there", "read_json", "require_file", "require_folder", "rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a data set comes from; said whenever one of its files is missing.

    Attributes:
        title: what people call it.
        home: the page of its makers.
        layout: how its files lie under the root, in words.
    """

    title: str
    home: str
    layout: str = ""

    @property
    def mend(self) -> str:
        """How to come by the files."""
        shape = f"; its files lie as {self.layout}" if self.layout else ""
        return f"Get it from {self.home}{shape}. Nothing is downloaded on its own"


LOCAL = Origin(title="the data set", home="wherever you keep it")


def require_file(path: Path, origin: Origin = LOCAL) -> Path:
    """The path itself.

    Raises:
        MissingFile: no file is there; the message says where the data set is from.
    """
    if not path.is_file():
        raise _missing(path, origin, "A file")
    return path


def require_folder(path: Path, origin: Origin = LOCAL) -> Path:
    """The path itself.

    Raises:
        MissingFile: no folder is there; the message says where the data set is from.
    """
    if not path.is_dir():
        raise _missing(path, origin, "A folder")
    return path


def first_there(paths: Iterable[Path], origin: Origin = LOCAL) -> Path:
    """The first of the paths that exists: data sets are unpacked in more than one way.

    Raises:
        MissingFile: none does.
    """
    tried = tuple(paths)
    for path in tried:
        if path.exists():
            return path
    raise _missing(tried[0], origin, "A file or folder", others=tried[1:])


def _missing(path: Path, origin: Origin, what: str, others: Iterable[Path] = ()) -> MissingFile:
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    mend = "" if origin is LOCAL else origin.mend
    return MissingFile(
        f"{what} of {origin.title} is missing",
        field="root",
        expected=" or ".join(map(str, (path, *others))),
        got=f"{parent}, which has {_listing(parent)}",
        mend=mend,
    )


def _listing(folder: Path, most: int = 6) -> str:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return "nothing that may be read"
    if not names:
        return "nothing"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def read_json(path: Path, origin: Origin = LOCAL) -> Mapping[str, Any]:
    """A JSON file that holds an object.

    Raises:
        MissingFile: it is not there.
        InvalidDataset: it is truncated, no JSON, or holds something else.
    """
    require_file(path, origin)
    try:
        data = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidDataset(
            f"{path} is not JSON, or breaks off",
            field="annotations",
            expected=f"a whole JSON file of {path.stat().st_size} bytes or more",
            got=error,
            mend="Fetch it again and compare its size or checksum",
        ) from error
    except OSError as error:
        raise InvalidDataset(f"{path} cannot be read", field="annotations", got=error.strerror) from error
    if not isinstance(data, Mapping):
        raise InvalidDataset(
            f"{path} holds no JSON object", field="annotations", expected="{...}", got=type(data).__name__
        )
    return data


def rows(data: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    """The list of objects under a key of an annotation file.

    Raises:
        InvalidDataset: there is none.
    """
    found = data.get(key)
    if not isinstance(found, list):
        raise InvalidDataset(
            f"{path} has no list of {key}",
            field=key,
            expected=f'{{"{key}": [...]}}',
            got=f"keys {', '.join(map(str, data))}" if found is None else type(found).__name__,
        )
    for index, row in enumerate(found):
        if not isinstance(row, Mapping):
            raise InvalidDataset(
                f"{path} has an entry that is no object",
                field=f"{key}[{index}]",
                expected="{...}",
                got=repr(row),
            )
    return found
