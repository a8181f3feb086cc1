"""Fetch one large file: resumed where it was broken off, checked, and moved into place whole."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ovperception.errors import (
    InvalidCheckpoint,
    InvalidParameter,
    MissingFile,
    OVPError,
    ResourceExhausted,
    Unavailable,
)

__all__ = ["Progress", "direct_url", "download", "sha256_of"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes of the whole, if known."""

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
_ATTEMPTS = 4
_PAUSE_S = 1.0
_DRIVE = re.compile(r"https://drive\.google\.com/(?:file/d/|open\?id=|uc\?(?:.*&)?id=)([\w-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """What a partial file is a part of; another origin means to begin again."""

    url: str
    validator: str = ""
    total: int | None = None


class _BrokenOff(Exception):
    """The connection ended early; what came is kept."""


def direct_url(url: str) -> str:
    """The address of the bytes themselves, for links that lead to a page about a file (Google Drive)."""
    match = _DRIVE.match(url)
    # confirm=t answers the question that large files are asked with ("cannot be scanned for viruses").
    return f"https://drive.google.com/uc?export=download&confirm=t&id={match[1]}" if match else url


def download(url: str, target: Path, *, sha256: str = "", progress: Progress | None = None) -> str:
    """Fetch a file. What was broken off stays beside `target` as ``.partial`` and is resumed next time.

    Args:
        url: ``https://``, ``http://`` or ``file://``; Google Drive's links to a file are understood.
        target: where it goes; a file that is there is replaced.
        sha256: what the bytes must hash to, hex; not checked if empty.
        progress: told after every piece.

    Returns:
        SHA-256 (hex) of the file.

    Raises:
        InvalidParameter: another kind of address.
        Unavailable: no connection, refused, broken off, or a web page instead of the file.
        InvalidCheckpoint: the checksum is another; the file was deleted.
        ResourceExhausted: the disk is full; what came is kept.
        MissingFile: the folder cannot be written to, or a ``file://`` address leads nowhere.
    """
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise InvalidParameter(
            "Cannot fetch this address", field="url", expected="https:// or file://", got=url
        )
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            _lock(file, target)
            _fill(direct_url(url), partial, file, progress or (lambda done, total: None))
    except OSError as error:
        raise _disk_error(error, target) from error
    digest = sha256_of(partial)
    if sha256 and digest != sha256.lower():
        _forget(partial)
        raise InvalidCheckpoint(
            f"{target.name} is not the file that was published",
            expected=f"SHA-256 {sha256}",
            got=digest,
            mend="It was deleted; try again, and if it stays so, do not use that source",
        )
    partial.replace(target)
    _origin_path(partial).unlink(missing_ok=True)
    return digest


def _lock(file: IO[bytes], target: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Unavailable(
            f"{target.name} is already being fetched by another process", mend="Wait for it, or stop it"
        ) from error


def _fill(url: str, partial: Path, file: IO[bytes], progress: Progress) -> None:
    """Fetch until whole; gives up after some attempts in a row that brought nothing new."""
    reason, failures, best = "", 0, file.tell()
    while failures < _ATTEMPTS:
        if failures:
            time.sleep(_PAUSE_S * failures)
        try:
            _fetch(url, partial, file, progress)
            return
        except _BrokenOff as error:
            reason = str(error)
            failures = 0 if file.tell() > best else failures + 1
            best = max(best, file.tell())
    raise Unavailable(
        f"The connection to {urlsplit(url).hostname} broke off",
        got=f"{file.tell()} bytes ({reason})",
        mend="What came is kept: run the same command again to go on from there",
    )


def _fetch(url: str, partial: Path, file: IO[bytes], progress: Progress) -> None:
    known = _read_origin(partial)
    if known.url != url or file.seek(0, 2) == 0:
        known = _Origin(url=url)
        file.truncate(0)
        file.seek(0)
    have = file.tell()
    if known.total is not None and have == known.total:
        progress(have, have)
        return
    with _open(url, known, have) as answer:
        _refuse_page(answer, url)
        begin = _begin(answer, have, known)
        if begin != have:
            file.truncate(0)
            file.seek(0)
        if begin is None:
            raise _BrokenOff("the server does not resume as it should")
        length = answer.headers.get("Content-Length")
        total = begin + int(length) if length is not None and length.isdigit() else None
        _write_origin(partial, _Origin(url=url, validator=_validator(answer), total=total))
        _refuse_if_no_room(partial, total, begin)
        _copy(answer, file, total, progress)


def _open(url: str, known: _Origin, have: int) -> Any:
    # identity: a compressed answer could not be resumed.
    headers = {"User-Agent": "ovperception", "Accept-Encoding": "identity"}
    if have and not url.startswith("file:"):
        headers["Range"] = f"bytes={have}-"
        if known.validator:
            headers["If-Range"] = known.validator
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # what is here does not fit what is there now
            return _open(url, known, 0)
        raise Unavailable(
            f"{urlsplit(url).hostname} does not give the file",
            got=f"HTTP {error.code} {error.reason}",
            mend="Open the address in a browser; it may have moved, or ask for a login",
        ) from error
    except urllib.error.URLError as error:
        if url.startswith("file:"):
            raise MissingFile("There is no such file", field="url", got=url) from error
        if isinstance(error.reason, TimeoutError | ConnectionError):
            raise _BrokenOff(str(error.reason)) from error
        raise Unavailable(
            f"{urlsplit(url).hostname} cannot be reached",
            got=error.reason,
            mend="Check the network and the proxy, or fetch the file on another machine",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOff(f"{type(error).__name__}: {error}") from error


def _refuse_page(answer: Any, url: str) -> None:
    if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise Unavailable(
            f"{urlsplit(url).hostname or url} answered with a web page instead of the file",
            mend="It may ask for a login or a confirmation, or too many asked today: download it by hand",
        )


def _begin(answer: Any, have: int, known: _Origin) -> int | None:
    """Where in the whole file the answer begins; None: it does not continue what is here."""
    if answer.status != 206:
        return 0
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    same = match is not None and (known.total is None or match[2] in ("*", str(known.total)))
    return have if match is not None and int(match[1]) == have and same else None


def _validator(answer: Any) -> str:
    """What proves at the next try that the file is still the same: a strong ETag, or its date."""
    etag = str(answer.headers.get("ETag", ""))
    date = str(answer.headers.get("Last-Modified", ""))
    return etag if etag and not etag.startswith("W/") else date


def _copy(answer: Any, file: IO[bytes], total: int | None, progress: Progress) -> None:
    while True:
        try:
            piece = answer.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            file.flush()
            raise _BrokenOff(f"{type(error).__name__}: {error}") from error
        if not piece:
            break
        file.write(piece)
        progress(file.tell(), total)
    file.flush()
    if total is not None and file.tell() != total:
        raise _BrokenOff(f"{total} bytes were announced")


def _refuse_if_no_room(partial: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if total is not None and total - have > free:
        raise ResourceExhausted(
            f"No room for {partial.name.removesuffix('.partial')} in {partial.parent}",
            expected=f"{total - have} bytes free",
            got=free,
            mend="Free some disk space, or set OVPERCEPTION_CACHE to a folder on another disk",
        )


def _disk_error(error: OSError, target: Path) -> OVPError:
    if isinstance(error, OVPError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(
            f"No room for {target.name}", got=error, mend="Free some disk space; what came is kept"
        )
    return MissingFile(
        f"Cannot write {target}", got=error, mend="Set OVPERCEPTION_CACHE to a folder of yours"
    )


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return str(hashlib.file_digest(file, "sha256").hexdigest())


def _origin_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _read_origin(partial: Path) -> _Origin:
    try:
        return _Origin(**json.loads(_origin_path(partial).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _Origin(url="")


def _write_origin(partial: Path, origin: _Origin) -> None:
    _origin_path(partial).write_text(json.dumps(asdict(origin)), encoding="utf-8")


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _origin_path(partial).unlink(missing_ok=True)
