"""How a command reaches a server: its address, and what is shown to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovperception.errors import MissingFile

if TYPE_CHECKING:
    from ovperception.client import TLS, Client

__all__ = ["ServerAccess"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAccess:
    """A server, as flags name it.

    Attributes:
        address: ``HOST:PORT``, or ``unix:PATH``.
        timeout_s: How long a call may take.
        token_file: Holds the bearer token and nothing else.
        tls: Whether to use TLS without `shown`.
        shown: Authorities to trust, the certificate to show, and its key: PEM files.
    """

    address: str
    timeout_s: float
    token_file: Path | None = None
    tls: bool = False
    shown: tuple[Path | None, Path | None, Path | None] = (None, None, None)

    def connect(self, model: str | None) -> Client:
        """A client.

        Raises:
            MissingFile: The token or a certificate cannot be read.
            InvalidParameter: The address is none, or the token would go over a network in clear.
        """
        from ovperception.client import Client

        return Client(
            self.address, model=model, timeout_s=self.timeout_s, tls=self.certificates(), token=self.token()
        )

    def certificates(self) -> TLS | None:
        """Whom to trust and what to show, for TLS; None where it is not wanted."""
        from ovperception.client import TLS

        authorities, certificate, key = self.shown
        if not (self.tls or any(self.shown)):
            return None
        return TLS(root_certificates=authorities, certificate=certificate, key=key)

    def token(self) -> str:
        """The bearer token; empty for none.

        Raises:
            MissingFile: It cannot be read.
        """
        if self.token_file is None:
            return ""
        try:
            token = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise MissingFile("The token cannot be read", field="token_file", got=error) from None
        if not token:
            raise MissingFile("The file of the token is empty", field="token_file", got=self.token_file)
        return token
