"""What callers may do who are known by their certificates alone.

Without a file, whoever shows a certificate of the authorities may infer, and nobody may administer. A file
has one name a line, ``name:scopes``, where `name` is the common name of a certificate, or ``*`` for all that
have no line of their own; ``name:`` alone lets it do nothing:

    operator:infer,admin
    retired-robot:
    *:infer

It is read anew when it changes; one that cannot be read then leaves the scopes as they were.
"""

from __future__ import annotations

from pathlib import Path

from ovperception.errors import InvalidParameter
from serving.identity import Scope, read_scopes
from serving.watched_file import WatchedFile, lines_of

__all__ = ["CertificateScopes"]

_FIELD = "certificates_file"
_OTHERS = "*"
_WITHOUT_A_FILE: frozenset[Scope] = frozenset({"infer"})


class CertificateScopes:
    """Scopes by the common name of a certificate.

    Args:
        path: The file; None for none.

    Raises:
        MissingFile: It cannot be read.
        InvalidParameter: A line says nothing of a certificate.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = WatchedFile(path, _read, "scopes of certificates") if path is not None else None

    def of(self, name: str) -> frozenset[Scope]:
        """What the owner of this name may do."""
        if self._file is None:
            return _WITHOUT_A_FILE
        said = self._file.said
        return said.get(name, said.get(_OTHERS, frozenset()))

    def reload(self) -> None:
        """Read the file anew; what is wrong with it is logged, and the scopes stay as they were."""
        if self._file is not None:
            self._file.reload()


def _read(path: Path) -> dict[str, frozenset[Scope]]:
    found: dict[str, frozenset[Scope]] = {}
    for text, where in lines_of(path, _FIELD):
        name, colon, scopes = text.rpartition(":")
        if not colon or not name:
            raise InvalidParameter(
                "A line says nothing of a certificate", field=_FIELD, expected="name:scopes", got=where
            )
        if name in found:
            raise InvalidParameter("A name has two lines", field=_FIELD, expected="one a name", got=where)
        found[name] = read_scopes(scopes, _FIELD, where) if scopes else frozenset()
    return found
