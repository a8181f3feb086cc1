"""Who may call: bearer tokens with scopes, and the names in clients' certificates.

A tokens file has one token a line, ``name:scopes:token``, where `scopes` is ``infer``, ``admin`` or both with
a comma, and `token` stands in clear or as ``sha256:HEX``. Lines that begin with ``#`` are left out:

    robot-7:infer:sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
    operator:infer,admin:some-long-random-text

The file is read anew when it changes; one that cannot be read then leaves the tokens as they were.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import grpc

from ovperception.errors import InvalidParameter, MissingFile, PermissionDenied, Unauthenticated
from serving.config import ServerConfig

__all__ = ["Caller", "Guard", "Scope", "Tokens", "caller", "file_stamp", "warnings_of"]

Scope = Literal["infer", "admin"]
_SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
_LOOK_AGAIN_S = 1.0
_SHORTEST_TOKEN = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls; the name is empty where nobody has to say it."""

    name: str
    scopes: frozenset[Scope]


ANYBODY = Caller(name="", scopes=_SCOPES)
_caller: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)


def caller() -> Caller:
    """Who makes the call that this thread works for; gRPC runs each call in a context of its own."""
    return _caller.get()


class Tokens:
    """The tokens of a file, by their digests.

    Args:
        path: The file.

    Raises:
        MissingFile: It cannot be read.
        InvalidParameter: A line is none of a token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp = file_stamp(path)
        self._looked_s = time.monotonic()
        self._callers = _read_tokens(path)

    def __len__(self) -> int:
        return len(self._callers)

    def find(self, token: str) -> Caller | None:
        """Whose token this is, in a time that does not tell how much of it is right."""
        self._reload_if_changed()
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for known, owner in self._callers.items():
            if hmac.compare_digest(known, digest):
                found = owner
        return found

    def reload(self) -> None:
        """Read the file anew; what is wrong with it is logged, and the tokens stay as they were."""
        with self._lock:
            self._stamp = file_stamp(self._path)
            try:
                self._callers = _read_tokens(self._path)
            except (MissingFile, InvalidParameter) as error:
                _log.error("the tokens stay as they were: %s", error.message)
                return
        _log.info("read %d tokens", len(self._callers))

    def _reload_if_changed(self) -> None:
        now = time.monotonic()
        if now - self._looked_s < _LOOK_AGAIN_S:
            return
        self._looked_s = now
        if file_stamp(self._path) != self._stamp:
            self.reload()


def file_stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file does; zeros if there is none."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _read_tokens(path: Path) -> dict[bytes, Caller]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MissingFile("The tokens cannot be read", field="tokens_file", got=f"{path}: {error}") from None
    found: dict[bytes, Caller] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            digest, owner = _read_token(text, f"{path}, line {number}")
            found[digest] = owner
    if not found:
        raise InvalidParameter("The file has no token: nobody could call", field="tokens_file", got=path)
    return found


def _read_token(text: str, where: str) -> tuple[bytes, Caller]:
    """The digest and owner of a line; an error never shows the line, which may hold a secret."""
    parts = text.split(":", 2)
    if len(parts) < 3 or not all(parts):
        raise InvalidParameter(
            "A line is no token", field="tokens_file", expected="name:scopes:token", got=where
        )
    name, scopes_text, token = parts
    scopes = frozenset(scope for scope in _SCOPES if scope in scopes_text.split(","))
    if len(scopes) < len(scopes_text.split(",")):
        expected = "infer, admin, or infer,admin"
        raise InvalidParameter("A scope is not known", field="tokens_file", expected=expected, got=where)
    owner = Caller(name=name, scopes=scopes)
    if not token.startswith("sha256:"):
        if len(token) < _SHORTEST_TOKEN:
            raise InvalidParameter(
                "A token is short enough to be guessed",
                field="tokens_file",
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
            "A digest is no SHA-256", field="tokens_file", expected="64 hexadecimal digits", got=where
        )
    return digest, owner


class Guard:
    """Tells who makes a call, and whether they may.

    Args:
        scope: What callers of this port need.
        tokens: None if no token is needed.
        certificates: Whether clients show certificates; a name is then that of the certificate.
    """

    def __init__(self, scope: Scope, tokens: Tokens | None, *, certificates: bool = False) -> None:
        self._scope = scope
        self._tokens = tokens
        self._certificates = certificates

    def admit(self, metadata: Sequence[tuple[str, str | bytes]], context: grpc.ServicerContext) -> Caller:
        """Know the caller, for `caller` too.

        Raises:
            Unauthenticated: A token is needed, and this one is none.
            PermissionDenied: It is one, without the scope that is needed.
        """
        owner = self._identify(metadata, context)
        if self._scope not in owner.scopes:
            raise PermissionDenied(
                "This token does not allow that",
                expected=f"a token with the scope {self._scope}",
                got=f"{owner.name} with {', '.join(sorted(owner.scopes))}",
            )
        _caller.set(owner)
        return owner

    def _identify(self, metadata: Sequence[tuple[str, str | bytes]], context: grpc.ServicerContext) -> Caller:
        if self._tokens is None:
            return Caller(name=_common_name(context), scopes=_SCOPES) if self._certificates else ANYBODY
        token = _bearer(metadata)
        owner = self._tokens.find(token) if token else None
        if owner is None:
            raise Unauthenticated(
                "The token is not known" if token else "The call brought no token",
                field="authorization",
                expected="metadata authorization: Bearer TOKEN",
                mend="Ask whoever runs the server for a token",
            )
        return owner


def _bearer(metadata: Sequence[tuple[str, str | bytes]]) -> str:
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""


def _common_name(context: grpc.ServicerContext) -> str:
    # Its type stub forgets that each property is a list.
    names = cast("Mapping[str, Sequence[bytes]]", context.auth_context() or {})
    found = names.get("x509_common_name") or names.get("x509_subject_alternative_name") or (b"",)
    return found[0].decode(errors="replace")


def warnings_of(config: ServerConfig) -> list[str]:
    """What whoever starts a server with these settings should know."""
    found = []
    ports = [("host", config.host, True), ("admin_host", config.admin_host, config.admin_port is not None)]
    for name, host, used in ports:
        if not used or _is_local(host):
            continue
        if config.tls_cert is None:
            found.append(
                f"{name} {host} can be reached from other machines, and without tls_cert anyone can listen"
            )
        if config.tokens_file is None and config.tls_client_ca is None:
            found.append(
                f"{name} {host} can be reached from other machines, and without tokens_file anyone may call"
            )
    if config.metrics_port is not None and not _is_local(config.metrics_host):
        found.append(f"metrics_host {config.metrics_host} can be reached from other machines, in clear")
    if config.tokens_file is not None and file_stamp(config.tokens_file) != (0, 0, 0):
        if config.tokens_file.stat().st_mode & 0o077:
            found.append(f"others on this machine may read {config.tokens_file}; chmod 600 keeps it to you")
        if config.tls_cert is None and not _is_local(config.host):
            found.append("tokens go over the network in clear without tls_cert")
    return found


def _is_local(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith(("127.", "unix:"))
