"""Bearer tokens with scopes.

A file has one token a line, ``name:scopes:token``, where `scopes` is ``infer``, ``admin`` or both with a
comma, and `token` stands in clear or as ``sha256:HEX``. Lines that begin with ``#`` are left out:

    robot-7:infer:sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
    operator:infer,admin:some-long-random-text

The file is read anew when it changes; one that cannot be read then leaves the tokens as they were.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from ovperception.errors import InvalidParameter
from serving.identity import Caller, read_scopes
from serving.watched_file import WatchedFile, lines_of

__all__ = ["Tokens"]

_SHORTEST_TOKEN = 16
_FIELD = "tokens_file"


class Tokens:
    """The tokens of a file, by their digests.

    Args:
        path: The file.

    Raises:
        MissingFile: It cannot be read.
        InvalidParameter: A line is none of a token.
    """

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path, _read, "tokens")

    def __len__(self) -> int:
        return len(self._file.said)

    def find(self, token: str) -> Caller | None:
        """Whose token this is, in a time that does not tell how much of it is right."""
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for known, owner in self._file.said.items():
            if hmac.compare_digest(known, digest):
                found = owner
        return found

    def reload(self) -> None:
        """Read the file anew; what is wrong with it is logged, and the tokens stay as they were."""
        self._file.reload()


def _read(path: Path) -> dict[bytes, Caller]:
    found = dict(_read_token(text, where) for text, where in lines_of(path, _FIELD))
    if not found:
        raise InvalidParameter("The file has no token: nobody could call", field=_FIELD, got=path)
    return found


def _read_token(text: str, where: str) -> tuple[bytes, Caller]:
    """The digest and owner of a line; an error never shows the line, which may hold a secret."""
    parts = text.split(":", 2)
    if len(parts) < 3 or not all(parts):
        raise InvalidParameter("A line is no token", field=_FIELD, expected="name:scopes:token", got=where)
    name, scopes, token = parts
    owner = Caller(name=name, scopes=read_scopes(scopes, _FIELD, where))
    if not token.startswith("sha256:"):
        if len(token) < _SHORTEST_TOKEN:
            raise InvalidParameter(
                "A token is short enough to be guessed",
                field=_FIELD,
                expected=f"{_SHORTEST_TOKEN} characters or more",
                got=where,
            )
        return hashlib.sha256(token.encode()).digest(), owner
    try:
        digest = bytes.fromhex(token.removeprefix("sha256:"))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise InvalidParameter(
            "A digest is no SHA-256", field=_FIELD, expected="64 hexadecimal digits", got=where
        )
    return digest, owner
