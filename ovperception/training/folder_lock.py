"""One run a folder: two at once would overwrite each other's state."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ovperception.errors import Conflict

__all__ = ["locked"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside the block no other process's run writes to the folder.

    The kernel holds the lock for this process alone, not for its workers, and gives it back however the
    process ends: what a killed run leaves is a file and no lock.

    Raises:
        Conflict: another run has it.
    """
    with (folder / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise Conflict(
                f"Another run is writing to {folder}",
                field="out",
                got=f"process {file.read().strip()}",
                mend="Stop it or let it end, or give this one another out=FOLDER",
            ) from error
        except OSError:
            pass  # a file system that knows no locks
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
