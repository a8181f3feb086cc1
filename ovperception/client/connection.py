"""What a connection needs: where to, with which certificate and token, and what its failures mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_status import rpc_status

from ovperception.client.numbers import at_least_one, real
from ovperception.errors import (
    DeadlineExceeded,
    InvalidParameter,
    MissingFile,
    OVPError,
    ResourceExhausted,
    Unavailable,
    Unsupported,
)
from ovperception.wire_errors import error_of

__all__ = ["TLS", "Connection"]

# What gRPC for asyncio says, with the code INTERNAL, when it writes to a connection just lost.
_SENT_TO_NOBODY = "Internal error from Core"


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How to know the server, and be known to it. Each is a path, or the PEM text itself.

    Attributes:
        root_certificates: Whom to trust; None means whom this machine trusts.
        certificate: The client's own, where the server wants one.
        key: The key of `certificate`.
        server_name: The name in the server's certificate, where it is not the one in the address.
    """

    root_certificates: Path | str | bytes | None = None
    certificate: Path | str | bytes | None = None
    key: Path | str | bytes | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidParameter(
                "A client's certificate needs its key, and a key its certificate",
                field="tls.key" if self.key is None else "tls.certificate",
            )

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel.

        Raises:
            MissingFile: A file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_pem(self.root_certificates),
            private_key=_pem(self.key),
            certificate_chain=_pem(self.certificate),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The settings of a channel.

    Attributes:
        address: ``host:port``, or ``unix:PATH``.
        tls: None for none.
        token: Shown to the server with each call; empty for none.
        timeout_s: How long a call may take in all.
        max_message_bytes: Largest request or reply.

    Raises:
        InvalidParameter: One of them cannot be, or the token would travel in clear.
    """

    address: str
    tls: TLS | None
    token: str
    timeout_s: float
    max_message_bytes: int

    def __post_init__(self) -> None:
        host, colon, port = str(self.address).rpartition(":")
        if not str(self.address).startswith("unix:") and not (
            host and colon and port.isdigit() and int(port) <= 65535
        ):
            raise InvalidParameter(
                "No such address", field="address", expected="HOST:PORT or unix:PATH", got=self.address
            )
        at_least_one(self.max_message_bytes, "max_message_bytes")
        if not (real(self.timeout_s, "timeout_s") or 0) > 0:
            raise InvalidParameter(
                "The timeout is no time", field="timeout_s", expected="more than 0", got=self.timeout_s
            )
        if self.token and self.tls is None and not self.local:
            raise InvalidParameter(
                "The token would go over the network in clear",
                field="token",
                mend="Connect with tls=True, or through a tunnel to an address of this machine",
            )

    @property
    def local(self) -> bool:
        """Whether the server is on this machine."""
        host = self.address.rpartition(":")[0].strip("[]")
        return self.address.startswith("unix:") or host in {"localhost", "::1"} or host.startswith("127.")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    @property
    def options(self) -> list[tuple[str, Any]]:
        """Of a channel."""
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.enable_retries", 0),  # ours know what the server says about a second try
        ]
        if self.local:
            options.append(("grpc.enable_http_proxy", 0))
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def channel(self) -> grpc.Channel:
        """A channel for threads."""
        if self.tls is None:
            return grpc.insecure_channel(self.address, options=self.options)
        return grpc.secure_channel(self.address, self.tls.credentials(), options=self.options)

    def async_channel(self) -> grpc.aio.Channel:
        """A channel for asyncio."""
        if self.tls is None:
            return grpc.aio.insecure_channel(self.address, options=self.options)
        return grpc.aio.secure_channel(self.address, self.tls.credentials(), options=self.options)

    # `Any`: what failed calls of threads and of asyncio share has no type in grpc.
    def explain(self, error: Any, *, connected: bool) -> OVPError:
        """The error a call ended with, as ours."""
        status = rpc_status.from_call(error)
        if status is not None and (ours := error_of(status)) is not None:
            return ours
        code, details = error.code(), error.details() or ""
        if code == grpc.StatusCode.UNAVAILABLE or details == _SENT_TO_NOBODY:
            return self._unreachable(details)
        if code == grpc.StatusCode.CANCELLED:
            what = "The call was ended by the server, or by closing this client"
            return Unavailable(what, got=details, mend="Try again")
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            if not connected:
                return self._unreachable(f"nothing for {self.timeout_s:g} s")
            return DeadlineExceeded(
                f"The server did not answer within {self.timeout_s:g} s", mend="Allow more with timeout_s"
            )
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            return ResourceExhausted(
                "The message is larger than the client or the server allows",
                got=details,
                mend="Send a smaller image, or one encoded as JPEG or PNG",
            )
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return Unsupported(f"The server at {self.address} has no such method", got=details)
        return OVPError(f"The call failed with {code.name}", got=details)

    def _unreachable(self, got: str) -> Unavailable:
        return Unavailable(
            f"The server at {self.address} cannot be reached",
            got=got,
            mend=self._mend(got),
        )

    def _mend(self, got: str) -> str:
        """What to try, by what OpenSSL and gRPC say; a server tells no reasons to who speaks otherwise."""
        for said, mend in _TLS_MENDS.items():
            if said in got:
                return mend
        if "Socket closed" in got or "Connection reset" in got:
            if self.tls is None:
                return "Connect with tls=True or tls=TLS(...), if it serves over TLS"
            if self.tls.certificate is None:
                return "Show a certificate, TLS(certificate=..., key=...), if it wants one of its clients"
        return "Check the address, and that `ovp serve` runs there"


_TLS_MENDS = {
    "CERTIFICATE_VERIFY_FAILED": "Name whom to trust: TLS(root_certificates=...), the authority that signed "
    "the server's certificate",
    "WRONG_VERSION_NUMBER": "Connect without tls: the server there does not serve over TLS",
    "Hostname Verification": "Name what stands in the server's certificate: TLS(server_name=...)",
}


def closed() -> Unavailable:
    """The error of a client that was closed."""
    return Unavailable("This client was closed", mend="Make a new one")


def _pem(given: Path | str | bytes | None) -> bytes | None:
    if given is None or isinstance(given, bytes):
        return given
    if isinstance(given, str) and given.lstrip().startswith("-----BEGIN"):
        return given.encode()
    try:
        return Path(given).read_bytes()
    except OSError as error:
        raise MissingFile("A certificate or key cannot be read", field="tls", got=error) from None
