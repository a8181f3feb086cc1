"""Text embeddings that are paid for once: in memory for this process, on disk for the next.

An embedding's key is the SHA-256 of its prompt inside a *space*; a space is the SHA-256 of everything else
it depends on (text tower, tokenizer, templates, averaging rule). On disk a space is a folder of immutable
files, each a batch of keys and vectors, moved into place when complete: readers and writers of several
processes need no lock, a damaged file is dropped and its prompts are encoded again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import uuid
import zlib
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

__all__ = ["EmbeddingCache", "cache_folder"]

_log = logging.getLogger(__name__)

Vector = npt.NDArray[np.float32]

_MAX_FILES_PER_SPACE = 64
_UNREADABLE = (OSError, SafetensorError, ValueError, KeyError)


def cache_folder() -> Path:
    """Where we keep what can be made again: ``$OVPERCEPTION_CACHE``, else ``~/.cache/ovperception``."""
    given = os.environ.get("OVPERCEPTION_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "ovperception"


class EmbeddingCache:
    """Vectors by space and prompt. Thread-safe; several processes may share a folder.

    Args:
        folder: Where batches are kept on disk; None for memory only.
        max_entries: Vectors held in memory.
        max_bytes: Bytes of vectors held in memory.
        max_disk_bytes: Bytes on disk; what was longest unused goes first.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        max_entries: int = 200_000,
        max_bytes: int = 512 * 2**20,
        max_disk_bytes: int = 2 * 2**30,
    ) -> None:
        self.folder = folder
        self.max_entries, self.max_bytes, self.max_disk_bytes = max_entries, max_bytes, max_disk_bytes
        self._memory: OrderedDict[tuple[str, bytes], Vector] = OrderedDict()
        self._bytes = 0
        self._index: dict[str, dict[bytes, tuple[Path, int]]] = {}
        self._seen: dict[str, set[Path]] = {}
        self._writable = folder is not None
        self._lock = threading.RLock()
        self.counts: Counter[str] = Counter()
        """Texts asked for so far, by where they were: ``memory``, ``disk``, or ``missing``."""

    @classmethod
    def default(cls) -> EmbeddingCache:
        """A cache in the user's cache folder."""
        return cls(cache_folder() / "text")

    def get(self, space: str, prompts: Sequence[str]) -> dict[str, Vector]:
        """The vectors that are known; a prompt that is not in the answer has to be encoded."""
        keys = {prompt: _key(prompt) for prompt in prompts}
        with self._lock:
            found = self._recall(space, keys)
            recalled = len(found)
            if missing := {p: k for p, k in keys.items() if p not in found}:
                self._read(space, missing, found)
            self.counts["memory"] += recalled
            self.counts["disk"] += len(found) - recalled
            self.counts["missing"] += len(keys) - len(found)
        return found

    def put(self, space: str, vectors: Mapping[str, Vector]) -> None:
        """Keeps vectors, in memory and (where that works) on disk; what is not finite would stay wrong."""
        sound = {p: v for p, v in vectors.items() if np.isfinite(v).all()}
        entries = {_key(p): np.array(v, dtype=np.float32) for p, v in sound.items()}
        if not entries:
            return
        with self._lock:
            for key, vector in entries.items():
                self._remember(space, key, vector)
            if self.folder is not None and self._writable:
                self._write(space, entries)

    def _recall(self, space: str, keys: Mapping[str, bytes]) -> dict[str, Vector]:
        found = {}
        for prompt, key in keys.items():
            if (vector := self._memory.get((space, key))) is not None:
                self._memory.move_to_end((space, key))
                found[prompt] = vector
        return found

    def _remember(self, space: str, key: bytes, vector: Vector) -> None:
        if (old := self._memory.pop((space, key), None)) is not None:
            self._bytes -= old.nbytes
        self._memory[space, key] = vector
        self._bytes += vector.nbytes
        while self._memory and (len(self._memory) > self.max_entries or self._bytes > self.max_bytes):
            self._bytes -= self._memory.popitem(last=False)[1].nbytes

    # Disk.

    def _read(self, space: str, missing: Mapping[str, bytes], found: dict[str, Vector]) -> None:
        if self.folder is None:
            return
        self._scan(space)
        index = self._index[space]
        wanted: dict[Path, list[tuple[str, bytes, int]]] = {}
        for prompt, key in missing.items():
            if key in index:
                path, row = index[key]
                wanted.setdefault(path, []).append((prompt, key, row))
        for path, rows in wanted.items():
            try:
                _, vectors = _load(path)
                os.utime(path)
            except PermissionError:
                pass  # read-only, but the vectors are here
            except _UNREADABLE as error:
                self._drop(space, path, error)
                continue
            for prompt, key, row in rows:
                found[prompt] = vectors[row].copy()
                self._remember(space, key, found[prompt])

    def _scan(self, space: str) -> None:
        """Learns the files of a space that appeared since the last look, and forgets those that went."""
        assert self.folder is not None
        index, seen = self._index.setdefault(space, {}), self._seen.setdefault(space, set())
        try:
            present = set((self.folder / space).glob("*.safetensors"))
        except OSError:
            present = set()
        if gone := seen - present:
            seen -= gone
            for key in [key for key, (path, _) in index.items() if path in gone]:
                del index[key]
        for path in sorted(present - seen):
            seen.add(path)
            try:
                with safe_open(path, "numpy") as file:
                    keys = file.get_tensor("keys")
                if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != 32:
                    raise ValueError("not a table of keys")
            except _UNREADABLE as error:
                self._drop(space, path, error)
                continue
            index.update({row.tobytes(): (path, i) for i, row in enumerate(keys)})

    def _drop(self, space: str, path: Path, error: Exception) -> None:
        index = self._index[space]
        for key in [key for key, (where, _) in index.items() if where == path]:
            del index[key]
        if isinstance(error, FileNotFoundError):  # merged or evicted by another process
            return
        _log.warning("dropping a damaged text cache file: %s (%s)", path.name, error)
        try:
            path.unlink(missing_ok=True)
        except OSError:
            _log.debug("could not remove %s", path)

    def _write(self, space: str, entries: Mapping[bytes, Vector]) -> None:
        assert self.folder is not None
        folder = self.folder / space
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._add_file(space, entries)
            self._merge(space)
            self._evict()
        except (OSError, SafetensorError) as error:
            self._writable = False
            _log.warning(
                "text embeddings are not kept on disk: %s cannot be written (%s)", self.folder, error
            )

    def _add_file(self, space: str, entries: Mapping[bytes, Vector]) -> Path:
        assert self.folder is not None
        path = self.folder / space / f"{uuid.uuid4().hex}.safetensors"
        temporary = path.with_suffix(f".tmp{os.getpid()}")
        keys = np.frombuffer(b"".join(entries), dtype=np.uint8).reshape(-1, 32)
        vectors = np.stack(list(entries.values()))
        try:
            save_file({"keys": keys, "vectors": vectors}, temporary, {"crc32": str(_checksum(keys, vectors))})
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        index = self._index.setdefault(space, {})
        index.update({key: (path, row) for row, key in enumerate(entries)})
        self._seen.setdefault(space, set()).add(path)
        return path

    def _merge(self, space: str) -> None:
        """Makes one file of a space's many small ones."""
        self._scan(space)
        paths = sorted(self._seen[space])
        if len(paths) <= _MAX_FILES_PER_SPACE:
            return
        entries: dict[bytes, Vector] = {}
        for path in paths:
            try:
                keys, vectors = _load(path)
            except _UNREADABLE as error:
                self._drop(space, path, error)
                continue
            entries.update({key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)})
        self._add_file(space, entries)
        for path in paths:
            path.unlink(missing_ok=True)
        self._scan(space)

    def _evict(self) -> None:
        assert self.folder is not None
        files = []
        for path in self.folder.glob("*/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        if total <= self.max_disk_bytes:
            return
        for _, size, path in sorted(files):
            path.unlink(missing_ok=True)
            total -= size
            if total <= self.max_disk_bytes * 0.8:
                break


def _key(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode()).digest()


def _checksum(keys: npt.NDArray[np.uint8], vectors: Vector) -> int:
    return zlib.crc32(vectors.data, zlib.crc32(keys.data))


def _load(path: Path) -> tuple[npt.NDArray[np.uint8], Vector]:
    with safe_open(path, "numpy") as file:
        keys, vectors = file.get_tensor("keys"), file.get_tensor("vectors")
        expected = (file.metadata() or {}).get("crc32")
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != len(keys):
        raise ValueError("not a table of vectors")
    keys, vectors = np.ascontiguousarray(keys), np.ascontiguousarray(vectors)
    if str(_checksum(keys, vectors)) != expected:
        raise ValueError("checksum mismatch")
    return keys, vectors
