"""A file of settings that is read anew when it changes, and whose mistakes leave what was read before."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from ovperception.errors import InvalidParameter, MissingFile

__all__ = ["WatchedFile", "file_stamp", "lines_of"]

T = TypeVar("T")
_LOOK_AGAIN_S = 1.0
_log = logging.getLogger(__name__)


class WatchedFile(Generic[T]):
    """What a file says. Safe to use from several threads.

    Args:
        path: The file.
        read: Makes of a path what it says, and raises `MissingFile` or `InvalidParameter`.
        what: Its contents in a word, for the log.
    """

    def __init__(self, path: Path, read: Callable[[Path], T], what: str) -> None:
        self._path, self._read, self._what = path, read, what
        self._lock = threading.Lock()
        self._stamp = file_stamp(path)
        self._looked_s = time.monotonic()
        self._said = read(path)

    @property
    def said(self) -> T:
        """What it says now."""
        now = time.monotonic()
        if now - self._looked_s >= _LOOK_AGAIN_S:
            self._looked_s = now
            if file_stamp(self._path) != self._stamp:
                self.reload()
        return self._said

    def reload(self) -> None:
        """Read the file anew; what is wrong with it is logged, and nothing changes."""
        with self._lock:
            self._stamp = file_stamp(self._path)
            try:
                self._said = self._read(self._path)
            except (MissingFile, InvalidParameter) as error:
                _log.error("the %s stay as they were: %s", self._what, error.message)
                return
        _log.info("read the %s anew", self._what)


def file_stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file does; zeros if there is none."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def lines_of(path: Path, field: str) -> Iterator[tuple[str, str]]:
    """The lines of a file that say something, each with where it stands.

    Raises:
        MissingFile: It cannot be read.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MissingFile("A file cannot be read", field=field, got=f"{path}: {error}") from None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield text, f"{path}, line {number}"
