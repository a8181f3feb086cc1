"""Pictures with captions from tar shards, as CC3M is kept by webdataset: ``KEY.jpg`` beside ``KEY.txt``.

Shards are read from front to back, never unpacked. Each epoch takes the shards in another order, shares them
among processes and their workers, and mixes blocks of samples in memory. A block is mixed as a whole rather
than through a rolling buffer: so the place of a sample is four numbers, and a stream is taken up at any of
them by reading one block again instead of everything before it.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ovperception.errors import InvalidDataset, InvalidParameter, MissingFile, OVPError
from ovperception.images import load_image
from ovperception.training.wrong_data import Trouble

__all__ = ["CaptionedImage", "ImageTextTars", "Place", "find_shards"]

_PICTURES = ("jpg", "jpeg", "png", "webp")
_MAX_MEMBER = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a stream has come: what is to be read next.

    Attributes:
        epoch: passes over all shards that are done.
        shard: of this stream's shards in the order of the epoch.
        block: of the shard, counted from its front.
        index: in the mixed block.
    """

    epoch: int = 0
    shard: int = 0
    block: int = 0
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionedImage:
    """One sample.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        caption: as it is written.
        key: shard and name, for people.
        after: where the stream goes on.
        troubles: what was left out since the sample before.
    """

    image: NDArray[np.uint8]
    caption: str
    key: str
    after: Place
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A picture and its caption as bytes."""

    key: str
    picture: bytes
    text: bytes
    is_json: bool


def find_shards(folder: Path, pattern: str = "*.tar") -> tuple[Path, ...]:
    """The shards of a folder, in the order of their names.

    Raises:
        MissingFile: there are none.
    """
    found = tuple(sorted(folder.glob(pattern)))
    if not found:
        raise MissingFile(
            f"No shards in {folder}", field="data", expected=f"files called {pattern}", mend="Name the folder"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class ImageTextTars:
    """A stream without end, for one of the consumers that share the shards.

    Attributes:
        shards: all tar files, the same list for every consumer.
        seed: of the order.
        block: samples that are read and mixed at a time; this many encoded pictures are in memory.
        consumer: which of them this is: ``rank * workers + worker``.
        consumers: how many there are: ``ranks * workers``.
    """

    shards: Sequence[Path]
    seed: int = 0
    block: int = 1000
    consumer: int = 0
    consumers: int = 1

    def __post_init__(self) -> None:
        if self.block < 1 or not 0 <= self.consumer < self.consumers:
            raise InvalidParameter("No such block or consumer", got=(self.block, self.consumer))
        if len(self.shards) < self.consumers:
            raise InvalidParameter(
                "There are fewer shards than processes and workers to read them",
                field="workers",
                expected=f"up to {len(self.shards)} in all",
                got=self.consumers,
                mend="Use fewer workers, or cut the data into more shards",
            )

    def own_shards(self, epoch: int) -> tuple[Path, ...]:
        """The shards of this consumer in the order of an epoch; together the consumers have each once."""
        rng = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        order = rng.permutation(len(self.shards))
        return tuple(self.shards[i] for i in order[self.consumer :: self.consumers])

    def samples(self, place: Place | None = None) -> Iterator[CaptionedImage]:
        """The samples from a place on, epoch after epoch; the same whether or not the stream was stopped.

        Raises:
            InvalidDataset: a whole epoch has nothing that can be used.
        """
        place = Place() if place is None else place
        troubles: list[Trouble] = []
        epoch, first = place.epoch, place
        while True:
            given = 0
            for sample in self._epoch(epoch, first, troubles):
                given += 1
                yield sample
            if not given and first == Place(epoch=epoch):
                kinds = sorted({t.kind for t in troubles})
                raise InvalidDataset(
                    "Nothing in the shards can be used", field="data", got=", ".join(kinds) or "empty shards"
                )
            epoch += 1
            first = Place(epoch=epoch)

    def _epoch(self, epoch: int, first: Place, troubles: list[Trouble]) -> Iterator[CaptionedImage]:
        for number, shard in enumerate(self.own_shards(epoch)):
            if number < first.shard:
                continue
            skipped = first.block if number == first.shard else 0
            for block, entries in enumerate(self._blocks(shard, skipped, troubles), start=skipped):
                begin = first.index if (number, block) == (first.shard, first.block) else 0
                seed = [self.seed, epoch, self.shards.index(shard), block]
                order = np.random.Generator(np.random.PCG64(seed)).permutation(len(entries))
                for index in range(begin, len(order)):
                    entry = entries[order[index]]
                    where = f"{shard}:{entry.key}"
                    try:
                        image, caption = load_image(entry.picture), _caption(entry)
                    except OVPError as error:
                        kind = "a caption that is none"
                        if not isinstance(error, InvalidDataset):
                            kind = "a picture that cannot be decoded"
                        troubles.append(Trouble(kind=kind, where=where, message=error.message))
                        continue
                    after = Place(epoch=epoch, shard=number, block=block, index=index + 1)
                    yield CaptionedImage(
                        image=image, caption=caption, key=where, after=after, troubles=tuple(troubles)
                    )
                    troubles.clear()

    def _blocks(self, shard: Path, skipped: int, troubles: list[Trouble]) -> Iterator[list[_Entry]]:
        """The blocks of a shard, those before `skipped` passed over without reading their pictures."""
        entries: list[_Entry] = []
        for entry in _entries(shard, skipped * self.block, troubles):
            entries.append(entry)
            if len(entries) == self.block:
                yield entries
                entries = []
        if entries:
            yield entries


def _entries(shard: Path, skip: int, troubles: list[Trouble]) -> Iterator[_Entry]:
    """Pairs of a shard in order, after the first `skip`; members of one key are neighbours."""
    count = 0
    key, members = "", dict[str, tarfile.TarInfo]()
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                # Or it would remember all of them.
                tar.members.clear()  # type: ignore[attr-defined]
                if not member.isfile():
                    continue
                stem, _, ending = member.name.rpartition(".")
                if stem != key:
                    entry = _pair(tar, shard, key, members, count < skip, troubles)
                    count += entry is not None
                    if entry is not None and count > skip:
                        yield entry
                    key, members = stem, {}
                members[ending.lower()] = member
            entry = _pair(tar, shard, key, members, count < skip, troubles)
            if entry is not None and count + 1 > skip:
                yield entry
    except (OSError, tarfile.TarError, EOFError) as error:
        troubles.append(Trouble(kind="a shard that breaks off", where=str(shard), message=str(error)))


def _pair(
    tar: tarfile.TarFile,
    shard: Path,
    key: str,
    members: dict[str, tarfile.TarInfo],
    skipped: bool,
    troubles: list[Trouble],
) -> _Entry | None:
    """A picture with its caption; empty where it is only counted; None where one of them is missing."""
    if not members:
        return None
    picture = next((members[e] for e in _PICTURES if e in members), None)
    text = members.get("txt", members.get("json"))
    if picture is None or text is None:
        if not skipped:
            kind = "a member without picture" if picture is None else "a picture without caption"
            troubles.append(Trouble(kind=kind, where=f"{shard}:{key}"))
        return None
    if max(picture.size, text.size) > _MAX_MEMBER:
        troubles.append(Trouble(kind="a member that is too large", where=f"{shard}:{key}"))
        return None
    if skipped:
        return _Entry(key, b"", b"", False)
    return _Entry(key, _bytes(tar, picture), _bytes(tar, text), "txt" not in members)


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file: IO[bytes] | None = tar.extractfile(member)
    content = b"" if file is None else file.read()
    if len(content) != member.size:
        raise EOFError(f"{member.name} has {len(content)} of {member.size} bytes")
    return content


def _caption(entry: _Entry) -> str:
    try:
        text = entry.text.decode("utf-8")
        found = json.loads(text)["caption"] if entry.is_json else text
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDataset("The caption cannot be read", expected="UTF-8 text", got=error) from error
    if not isinstance(found, str) or not found.strip():
        raise InvalidDataset("The caption is empty", expected="some words", got=repr(found))
    return found.strip()
