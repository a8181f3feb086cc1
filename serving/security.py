"""Who may call: by bearer tokens with scopes, or by the names in clients' certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import grpc

from ovperception.errors import PermissionDenied, Unauthenticated
from serving.certificate_scopes import CertificateScopes
from serving.config import ServerConfig
from serving.identity import ANYBODY, Caller, Scope, caller, set_caller
from serving.tokens import Tokens
from serving.watched_file import file_stamp

__all__ = ["Caller", "Guard", "Scope", "caller", "warnings_of"]


class Guard:
    """Tells who makes a call, and whether they may.

    Args:
        scope: What callers of this port need.
        tokens: None if no token is needed.
        certificates: What owners of certificates may do, where clients show them and need no token.
    """

    def __init__(
        self, scope: Scope, tokens: Tokens | None, *, certificates: CertificateScopes | None = None
    ) -> None:
        self._scope = scope
        self._tokens = tokens
        self._certificates = certificates

    def admit(self, metadata: Sequence[tuple[str, str | bytes]], context: grpc.ServicerContext) -> Caller:
        """Know the caller, for `caller` too.

        Raises:
            Unauthenticated: A token is needed, and this one is none.
            PermissionDenied: The token or the certificate lacks the scope that is needed.
        """
        owner = self._identify(metadata, context)
        if self._scope not in owner.scopes:
            shown = "certificate" if self._tokens is None else "token"
            raise PermissionDenied(
                f"This {shown} does not allow that",
                expected=f"a {shown} with the scope {self._scope}",
                got=f"{owner.name!r} with {', '.join(sorted(owner.scopes)) or 'none'}",
            )
        set_caller(owner)
        return owner

    def _identify(self, metadata: Sequence[tuple[str, str | bytes]], context: grpc.ServicerContext) -> Caller:
        if self._tokens is None:
            if self._certificates is None:
                return ANYBODY
            name = _common_name(context)
            return Caller(name=name, scopes=self._certificates.of(name))
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
    by_certificate = config.tls_client_ca is not None and config.tokens_file is None
    if config.admin_port is not None and by_certificate and config.certificates_file is None:
        found.append(
            "nobody may use admin_port: no certificate has the scope admin without certificates_file"
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
