"""Records of the images that are done, on disk before the next few are begun.

Every session of every process appends to a file of its own, in chunks that are flushed to the disk; a line
that a killed process left half written is passed over. So a run goes on where it was, with any number of
processes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from ovperception.errors import Conflict, InvalidParameter, OVPError, ResourceExhausted

__all__ = ["Journal", "Record", "done_indices", "locked", "read_records", "record_of", "unwritable"]

Record = dict[str, Any]
_EVERY = frozenset({"i", "id", "at"})
_CHUNK = 16
_SECONDS = 0.25


class Journal:
    """Appends records to a new file; a context manager, which writes the last ones.

    Args:
        folder: of the records.
        session: name of the session; those of one run have different ones.
        rank: of the process.
    """

    def __init__(self, folder: Path, session: str, rank: int) -> None:
        self._path = folder / f"records-{session}-{rank:04d}.jsonl"
        self._waiting: list[str] = []
        self._written = time.monotonic()
        self._file: IO[bytes] | None = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Takes a record; it is on the disk after a few more, or with the first one a quarter of a second on.

        Raises:
            ResourceExhausted: the disk is full.
            InvalidParameter: the folder cannot be written.
        """
        self._waiting.append(json.dumps(record, separators=(",", ":")))
        if len(self._waiting) >= _CHUNK or time.monotonic() - self._written > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Puts everything on the disk; raises as `append`."""
        if not self._waiting:
            return
        data = "".join(f"{line}\n" for line in self._waiting).encode()
        try:
            if self._file is None:
                self._file = self._path.open("xb", buffering=0)
            self._file.write(data)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritable(self._path, error) from error
        self._waiting.clear()
        self._written = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()


def unwritable(path: Path, error: OSError) -> OVPError:
    """What to tell about a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(
            "The disk is full",
            got=path,
            mend="Make room and type the same command again: it goes on where it was, nothing is lost",
        )
    return InvalidParameter(
        "The output folder cannot be written",
        field="out",
        expected="a folder, or a path where one can be made",
        got=f"{path} ({error.strerror or error})",
        mend="Name another folder",
    )


def read_records(folder: Path, fields: frozenset[str] | None = None) -> Iterator[tuple[str, Record]]:
    """All whole records in the order of sessions and processes, with the name of their session.

    Args:
        folder: of the records.
        fields: what to keep of each, where it has them; None for all.
    """
    for path in sorted(folder.glob("records-*.jsonl")):
        session = path.stem.removeprefix("records-").rpartition("-")[0]
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # a process was killed here, or is writing
                record = record_of(line)
                if record is not None:
                    yield session, record if fields is None else {k: record[k] for k in fields if k in record}


def record_of(line: bytes) -> Record | None:
    """The record of a line; None of what a power cut left of one, which makes its image undone."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.keys() >= _EVERY else None


def done_indices(folder: Path) -> set[int]:
    """Indices of the images that have a record."""
    return {int(record["i"]) for _, record in read_records(folder, frozenset({"i"}))}


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Keeps a second run out of a folder.

    Args:
        folder: of the records.
        shared: let in the other processes of a torchrun.

    Raises:
        Conflict: another run is at work there.
        InvalidParameter: the folder cannot be written.
    """
    path = folder / "lock"
    try:
        file = path.open("ab")
    except OSError as error:
        raise unwritable(path, error) from error
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                "Another evaluation is writing into this folder",
                field="out",
                got=folder,
                mend="Wait for it, or name another folder",
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
