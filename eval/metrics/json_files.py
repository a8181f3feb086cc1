"""Reading of JSON that others wrote: a file that is missing, cut short or something else is told as such."""

from __future__ import annotations

import gc
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from ovperception.errors import InvalidDataset, MissingFile

__all__ = ["naming", "read_json", "uncollected"]


@contextmanager
def naming(source: object) -> Iterator[None]:
    """What is told to be wrong inside names the file it was read from.

    Args:
        source: its path; anything else has no name.

    Raises:
        InvalidDataset: the same, with the path before it.
    """
    try:
        yield
    except InvalidDataset as error:
        if not isinstance(source, str | Path) or Path(source).name in error.what:
            raise
        raise InvalidDataset(
            f"{source}: {error.what}",
            field=error.field,
            expected=error.expected,
            got=error.got or None,
            mend=error.mend,
        ) from error


@contextmanager
def uncollected() -> Iterator[None]:
    """Millions of small objects are made and none is garbage: looking for it takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():
                # Puts what was made among the old objects, or the next look at the new ones goes through all.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def read_json(path: str | Path) -> Any:
    """Content of a JSON file, gzipped or not.

    Raises:
        MissingFile: there is no such file.
        InvalidDataset: it is no JSON, or is cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile("This file does not exist", got=path, mend="Check the path.")
    content = path.read_bytes()
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        with uncollected():
            return _parsed(content)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) - 1 or error.msg.startswith("Unterminated")
        raise InvalidDataset(
            f"{path.name} is {'cut short' if cut else 'not JSON'}",
            expected="a whole JSON file",
            got=f"{len(content)} bytes, {error.msg} at line {error.lineno}, column {error.colno}",
            mend="Write or copy it again." if cut else "",
        ) from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise InvalidDataset(f"{path.name} is cut short", expected="a whole gzip file", got=error) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InvalidDataset(f"{path.name} is not JSON", got=type(error).__name__) from error


def _parsed(content: bytes) -> Any:
    """By pydantic's parser, in half the time; json reads again what that refuses, and says what is wrong."""
    try:
        return from_json(content, cache_strings="keys")
    except ValueError:
        return json.loads(content)
