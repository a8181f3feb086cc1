"""The records of a run by image, read one at a time however large they are together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from eval.running.journal import Record, record_of

__all__ = ["Done", "Sessions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Wall-clock of a run.

    Attributes:
        count: how often it was begun or taken up.
        started: seconds since 1970 of the first record.
        seconds: from first to last record, summed over the sessions.
    """

    count: int
    started: float
    seconds: float


class Done:
    """Finds records by index; of an image that was done twice, the first counts.

    Args:
        folder: of the records.
        count: images from this one on are passed over.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._places: dict[int, tuple[Path, int]] = {}
        self._sessions: dict[str, tuple[float, float]] = {}
        for path in sorted(folder.glob("records-*.jsonl")):
            session = path.stem.removeprefix("records-").rpartition("-")[0]
            with path.open("rb") as file:
                at = 0
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._note(line, path, at, session, count)
                    at += len(line)

    def _note(self, line: bytes, path: Path, at: int, session: str, count: int) -> None:
        record = record_of(line)
        if record is None or record["i"] >= count:
            return
        self._places.setdefault(int(record["i"]), (path, at))
        begun, ended = self._sessions.get(session, (record["at"], record["at"]))
        self._sessions[session] = (min(begun, record["at"]), max(ended, record["at"]))

    def __len__(self) -> int:
        """Images that are done."""
        return len(self._places)

    def __contains__(self, index: int) -> bool:
        """Whether an image is done."""
        return index in self._places

    def __iter__(self) -> Iterator[Record]:
        """All records in the order of the images."""
        return (self[index] for index in sorted(self._places))

    def __getitem__(self, index: int) -> Record:
        """The record of an image."""
        path, at = self._places[index]
        with path.open("rb") as file:
            file.seek(at)
            return cast("Record", json.loads(file.readline()))

    @property
    def sessions(self) -> Sessions:
        """When and how long."""
        spans = list(self._sessions.values())
        return Sessions(
            count=len(spans),
            started=min((begun for begun, _ in spans), default=0.0),
            seconds=sum(ended - begun for begun, ended in spans),
        )
